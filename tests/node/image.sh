#!/usr/bin/env bash
# Packs one static program into an image: image.sh NAME:TAG PROGRAM OUT.tar ARGUMENT...
# OUT is an archive as `docker save` writes it, with the program as /NAME-OF-THE-FILE, its only file, started with the
# arguments. This is what the Dockerfiles make FROM scratch, for machines without a container engine.
set -euo pipefail
tag=$1 program=$2 out=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

name=$(basename "$program")
command=\"/$name\"
for argument; do command+=,\"$argument\"; done
tar -cf "$work/layer.tar" --owner=0 --group=0 --mtime=@0 --mode=755 -C "$(dirname "$program")" "$name"
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
cat >"$work/config.json" <<JSON
{"architecture": "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')", "os": "linux",
 "config": {"Entrypoint": [$command]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
JSON
echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$tag\"], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
tar -cf "$out" -C "$work" config.json layer.tar manifest.json
