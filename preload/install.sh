#!/bin/sh
# Builds libtheap.so and installs it with its header and its pkg-config file:
#   install.sh [PREFIX [--features LIST]]
# The default PREFIX is /usr/local. DESTDIR goes before the prefix, as packagers want it.
set -eu
prefix=${1:-/usr/local}
[ $# = 0 ] || shift
absolute() { # what is relative is so to the caller's directory
    case $1 in
    '' | /*) printf %s "$1" ;;
    *) printf %s "$PWD/$1" ;;
    esac
}
prefix=$(absolute "$prefix")
to=$(absolute "${DESTDIR:-}")$prefix
cd "$(dirname "$0")"
built=$("${CARGO:-cargo}" build --package theap-preload --profile preload "$@" --message-format json |
    sed -n 's/.*"\([^"]*libtheap\.so\)".*/\1/p' | tail -n 1)
version=$("${CARGO:-cargo}" pkgid --package theap-preload | sed 's/.*[#@]//')
mkdir -p "$to/lib/pkgconfig" "$to/include"
install -m 755 "$built" "$to/lib/libtheap.so"
install -m 644 theap.h "$to/include/theap.h"
sed -e "s|@prefix@|$prefix|" -e "s|@version@|$version|" theap.pc.in >"$to/lib/pkgconfig/theap.pc"
