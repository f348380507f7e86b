#!/bin/sh
# Beside what npm installed here: soketi as it is published, without its dependencies, of which one (its WebSocket library) is not in
# the npm registry. Its Redis adapter needs three that are; of ioredis the major version that it asks for.
set -eu
npm pack --silent @soketi/soketi@1.6.1
echo "dbee79a6eb62f6034f9c621e945390b3b678fef518119f75760f15cb30d29a54  soketi-soketi-1.6.1.tgz" | sha256sum --check --quiet
mkdir -p node_modules/@soketi/soketi/node_modules
tar -xzf soketi-soketi-1.6.1.tgz -C node_modules/@soketi/soketi --strip-components=1
ln -sfn ../../../ioredis5 node_modules/@soketi/soketi/node_modules/ioredis
