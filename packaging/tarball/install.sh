#!/bin/sh
# Installs gateway and gatewayctl from a tarball of packaging/build, or replaces or removes them.
#
#   sh install.sh [--prefix DIR] [--sha256 HEX] gateway-VERSION-TARGET.tar.gz
#   sh install.sh [--prefix DIR] --remove
#
# Nothing is unpacked before the SHA-256 checksum is right: that of --sha256, or that of the file TARBALL.sha256 beside the
# tarball. The latter finds a broken download; only the former, from a source that you trust, finds a forged one.
set -eu

prefix=/usr/local
sum=
remove=no
tarball=

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --sha256)
        [ $# -ge 2 ] || fail "$1 takes a value"
        [ "$1" = --prefix ] && prefix=$2
        [ "$1" = --sha256 ] && sum=$2
        shift
        ;;
    --remove) remove=yes ;;
    -*) fail "unknown option: $1; the head of this file tells the usage" ;;
    *) tarball=$1 ;;
    esac
    shift
done
case $prefix in
/*) ;;
*) fail "--prefix takes an absolute path, not $prefix" ;;
esac

# What this script installed, one path a line, relative to the prefix.
manifest=$prefix/share/gateway/installed-files

if [ "$remove" = yes ]; then
    [ -f "$manifest" ] || fail "$manifest is missing: nothing was installed below $prefix by this script"
    while read -r file; do
        rm -f "$prefix/$file"
    done <"$manifest"
    rm -f "$manifest"
    rmdir "$prefix/share/gateway" "$prefix/share/doc/gateway/docs/recipes" "$prefix/share/doc/gateway/docs" \
        "$prefix/share/doc/gateway" 2>/dev/null || true
    echo "removed gateway and gatewayctl from $prefix/bin"
    exit 0
fi

[ -n "$tarball" ] || fail "which tarball? the head of this file tells the usage"
[ -f "$tarball" ] || fail "$tarball is missing"
if [ -z "$sum" ]; then
    [ -f "$tarball.sha256" ] || fail "$tarball.sha256 is missing: fetch it too, or give the checksum with --sha256"
    read -r sum _ <"$tarball.sha256" || true
fi
case $sum in
*[!0-9a-f]* | '') fail "a SHA-256 checksum has 64 digits of 0-9 and a-f, not: $sum" ;;
esac
[ ${#sum} -eq 64 ] || fail "a SHA-256 checksum has 64 digits, not ${#sum}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A copy, so that what is unpacked is what was checked.
cp "$tarball" "$work/tarball"
found=$(sha256sum "$work/tarball" | cut -d ' ' -f 1)
if [ "$found" != "$sum" ]; then
    fail "the checksum of $tarball is wrong, so nothing was installed
  expected $sum
  found    $found
  next: fetch it again"
fi

mkdir "$work/root"
tar -xzf "$work/tarball" -C "$work/root" --strip-components 1 --no-same-owner
for program in gateway gatewayctl; do
    "$work/root/bin/$program" --version >/dev/null ||
        fail "$program does not run on this machine ($(uname -m)), so nothing was installed"
done

mkdir -p "$prefix" || fail "cannot make $prefix; root can, or choose another --prefix"
[ -w "$prefix" ] || fail "$prefix is not writable; root can, or choose another --prefix"
(cd "$work/root" && find . ! -type d | sed 's#^\./##' | sort) >"$work/files"
while read -r file; do
    mkdir -p "$(dirname "$prefix/$file")"
    # Into place by a rename: a program that runs is not written over, and at no moment there is none.
    cp -P "$work/root/$file" "$prefix/$file.new-$$"
    mv -f "$prefix/$file.new-$$" "$prefix/$file"
done <"$work/files"
mkdir -p "${manifest%/*}"
if [ -f "$manifest" ]; then
    # What an older version had and this one has not.
    while read -r file; do
        grep -qxF "$file" "$work/files" || rm -f "$prefix/$file"
    done <"$manifest"
fi
cp "$work/files" "$manifest"

echo "installed $("$prefix/bin/gateway" --version) in $prefix/bin"
case :$PATH: in
*:"$prefix/bin":*) ;;
*) echo "note: $prefix/bin is not in your PATH" ;;
esac
echo "A gateway that runs already is handed over to this program by: gatewayctl restart --fresh"
