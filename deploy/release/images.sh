#!/bin/sh
# Builds the images of a release from its archives: images.sh VERSION DIRECTORY [ARCH…], after build.sh with the same
# VERSION and DIRECTORY. Nothing runs in them while they are built and they have no base, so an image for arm64 can be
# built anywhere. They are named IMAGE:VERSION-ARCH.
set -eu
version=$1 out=$(cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- amd64 arm64
cd "$(dirname "$0")"
image=${IMAGE:-upcall} docker=${DOCKER:-docker}
certificates=${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt} # of Debian's ca-certificates, for OSS and hooks
commit=${COMMIT:-$(git rev-parse HEAD)}
export BUILDX_NO_DEFAULT_ATTESTATIONS=1 # with them each tag would be an index, of which no index can be made

for arch; do
  name=upcall-$version-linux-$arch
  at=$out/images/$arch
  rm -rf "$at"
  mkdir -p "$at/tree/usr/local/bin" "$at/tree/etc/ssl/certs" "$at/tree/tmp" "$at/tree/var/lib/upcall"
  # For root, too, as for any other user: what is made depends on the umask, and the modes are set below.
  tar -xzf "$out/$name.tar.gz" --no-same-owner --no-same-permissions -C "$at/tree/usr/local/bin" --strip-components=1 \
    "$name/issuer" "$name/receiver" "$name/ossemu"
  cp "$certificates" "$at/tree/etc/ssl/certs/ca-certificates.crt"
  find "$at/tree" -type d -exec chmod 755 {} +
  chmod 755 "$at"/tree/usr/local/bin/*
  chmod 644 "$at/tree/etc/ssl/certs/ca-certificates.crt"
  chmod 1777 "$at/tree/tmp"
  # The user's own, so that a new volume there is, too. The spool is a directory in it, that the receiver makes.
  chmod 700 "$at/tree/var/lib/upcall"
  pack() { tar --sort=name --format=ustar --mtime=@0 --numeric-owner -C "$at/tree" "$@"; }
  pack --owner=0 --group=0 --exclude=./var/lib/upcall -cf "$at/root.tar" .
  pack --owner=65532 --group=65532 -rf "$at/root.tar" ./var/lib/upcall
  rm -rf "$at/tree"
  cp Dockerfile "$at/"
  # Without a cache: the old builder's takes no account of the platform.
  "$docker" build --quiet --no-cache --platform "linux/$arch" --tag "$image:$version-$arch" \
    --label "org.opencontainers.image.version=$version" --label "org.opencontainers.image.revision=$commit" "$at"
done
