"""The simulated world: the production core, wire and native crate under virtual time, from one seed."""
