#!/bin/sh
# Installs the Debian packages of the programs that the tests run, those that are missing.
set -eu
missing=
need() { # PACKAGE PATH...: any of the paths tells that the package is there
    package=$1
    shift
    for path; do
        for found in $path; do
            [ -e "$found" ] && return
        done
    done
    missing="$missing $package"
}
need python3 /usr/bin/python3
need libpython3-testsuite '/usr/lib/python3*/test/test_json/__init__.py'
need redis-server /usr/bin/redis-server
need redis-tools /usr/bin/redis-benchmark
need sqlite3 /usr/bin/sqlite3
need git /usr/bin/git /usr/local/bin/git
need perl /usr/bin/perl
need g++ /usr/bin/g++
need tar /bin/tar
need xz-utils /usr/bin/xz
need binutils /usr/bin/objdump
need pkg-config /usr/bin/pkg-config
need valgrind /usr/bin/valgrind
[ -z "$missing" ] && exit
apt-get update -q
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $missing
