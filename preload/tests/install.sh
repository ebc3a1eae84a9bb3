#!/bin/sh
# Installs the Debian packages of the programs that `.ci/run` starts, those that are missing. A
# machine with Rust and a C compiler has the rest. Every package is a line `need PACKAGE PATH...`,
# as Debian 12 calls it; `.ci/packages-test` asks apt for each of them.
# usage: install.sh [--list]   (prints the packages, whether they are installed or not)
set -eu
list=${1:-}
missing=
updated=
update() { # refreshes apt's lists, once
    [ -n "$updated" ] || apt-get update -q >&2
    updated=yes
}
# The version of /usr/bin/python3, or of the one that apt would install.
python_version() {
    if [ -x /usr/bin/python3 ]; then
        /usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'
    else
        apt-cache depends python3 2>/dev/null | sed -n 's/^ *Depends: python\(3\.[0-9]*\)$/\1/p'
    fi
}
need() { # PACKAGE PATH...: any of the paths tells that the package is there
    # Some names bear a version of python: this machine's takes its place.
    package=$(echo "$1" | sed "s/python3\.[0-9]*/python$python/")
    shift
    if [ "$list" = --list ]; then
        echo "$package"
        return
    fi
    for path; do
        [ -e "$path" ] && return
    done
    missing="$missing $package"
}

python=$(python_version)
if [ -z "$python" ]; then
    update
    python=$(python_version)
fi
[ -n "$python" ] || { echo "install.sh: apt knows no version of python3" >&2 && exit 1; }

# The real programs of preload/tests/programs.rs, and what stops them.
need python3 /usr/bin/python3
need libpython3.11-testsuite "/usr/lib/python$python/test/test_json/__init__.py"
need redis-server /usr/bin/redis-server
need redis-tools /usr/bin/redis-benchmark
need sqlite3 /usr/bin/sqlite3
need git /usr/bin/git /usr/local/bin/git
need perl /usr/bin/perl
need tar /bin/tar
need xz-utils /usr/bin/xz
need procps /bin/kill
# The services and script engines of preload/tests/services.rs.
need nginx-light /usr/sbin/nginx
need memcached /usr/bin/memcached
need postgresql /usr/lib/postgresql/*/bin/pgbench
need php-cli /usr/bin/php
need nodejs /usr/bin/node
need util-linux /usr/bin/setpriv
# Compilers of the tests, of libFuzzer, and of the peers: CMake builds mimalloc 2, make jemalloc.
need g++ /usr/bin/g++
need make /usr/bin/make
need cmake /usr/bin/cmake /usr/local/bin/cmake
# nm, objdump, readelf and strip; the library's pkg-config file; memcheck, helgrind and drd.
need binutils /usr/bin/objdump
need pkg-config /usr/bin/pkg-config
need valgrind /usr/bin/valgrind
# Cores of running programs.
need gdb /usr/bin/gcore
# The machine of tests/numa-vm.sh; that script fetches the kernel itself.
need qemu-system-x86 /usr/bin/qemu-system-x86_64
need busybox-static /bin/busybox
need cpio /bin/cpio /usr/bin/cpio

[ -n "$missing" ] || exit 0
update
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $missing
