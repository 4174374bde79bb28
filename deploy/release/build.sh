#!/bin/sh
# Builds a release into a directory: build.sh VERSION DIRECTORY [OS/ARCH…]. The same sources, version and Go make
# the same bytes: no path, no time of the build and no user is in them.
set -eu
version=$1 out=$2
case $version in
'' | *[!A-Za-z0-9._+-]*) echo "build.sh: a version has letters, digits, dots, hyphens and plus signs only" >&2; exit 2 ;;
esac
shift 2
[ $# -gt 0 ] || set -- linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
cd "$(dirname "$0")/../.."
commit=${COMMIT:-$(git rev-parse HEAD)}
seconds=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
date=$(date -u -d "@$seconds" +%Y-%m-%dT%H:%M:%SZ)
at=upcall/internal/buildinfo
mkdir -p "$out"
out=$(cd "$out" && pwd)
flags="-s -w -buildid= -X $at.version=$version -X $at.commit=$commit -X $at.date=$date"

# What programs print about themselves is the same on each platform: those of this machine print it.
pages=$out/.pages
rm -rf "$pages"
mkdir -p "$pages/man" "$pages/completions" "$pages/bin"
CGO_ENABLED=0 GOFLAGS= go build -trimpath -buildvcs=false -ldflags "$flags" -o "$pages/bin/" ./cmd/issuer ./cmd/receiver ./cmd/ossemu
for program in issuer receiver ossemu; do
  "$pages/bin/$program" man >"$pages/man/$program.1"
  for shell in bash zsh fish; do
    "$pages/bin/$program" completion $shell >"$pages/completions/$program.$shell"
  done
done

for platform; do
  os=${platform%/*} arch=${platform#*/}
  name=upcall-$version-$os-$arch
  rm -rf "${out:?}/$name"
  mkdir -p "$out/$name"
  GOOS=$os GOARCH=$arch CGO_ENABLED=0 GOFLAGS= go build -trimpath -buildvcs=false \
    -ldflags "$flags" -o "$out/$name/" ./cmd/issuer ./cmd/receiver ./cmd/ossemu
  # What is in the programs, as CycloneDX: the tool is run at a version, so that it is not in go.mod.
  if [ "${SBOM:-yes}" = yes ]; then
    for program in issuer receiver ossemu; do
      GOFLAGS= go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 bin -json -std -noserial -notimestamp \
        -version "$version" -output "$out/$name-$program.cdx.json" "$out/$name/$program"
    done
  fi
  cp README.md CHANGELOG.md SECURITY.md "$out/$name/"
  cp -r deploy/systemd deploy/proxy deploy/ram "$out/$name/"
  cp -r "$pages/man" "$pages/completions" "$out/$name/"
  mkdir "$out/$name/helm"
  cp -r deploy/helm/upcall "$out/$name/helm/"
  chart=$out/$name/helm/upcall/Chart.yaml
  sed -i "s/^appVersion: .*/appVersion: \"$version\"/" "$chart"
  case $version in v[0-9]*.[0-9]*.[0-9]*) sed -i "s/^version: .*/version: ${version#v}/" "$chart" ;; esac
  find "$out/$name" -name '*_test.go' -delete
  find "$out/$name" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
  chmod 755 "$out/$name/issuer" "$out/$name/receiver" "$out/$name/ossemu"
  tar --sort=name --format=ustar --mtime="@$seconds" --owner=0 --group=0 --numeric-owner -C "$out" -cf - "$name" |
    gzip -9n >"$out/$name.tar.gz"
  rm -rf "${out:?}/$name"
done
rm -r "$pages"
cd "$out"
sha256sum -- upcall-"$version"-* >SHA256SUMS
