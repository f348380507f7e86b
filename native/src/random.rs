//! splitmix64: the one source of randomness in the crate, seeded by the caller (consensus.md section 5).

pub struct Random(u64);

impl Random {
    pub fn new(parts: &[u64]) -> Random {
        let mut state = 0x9E37_79B9_7F4A_7C15;
        for part in parts {
            state = mix(state ^ *part);
        }
        Random(state)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform enough in 0..bound for timeouts and choices; `bound` is small and not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
