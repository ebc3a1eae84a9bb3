#!/bin/bash
# Runs tests/numa in a machine with several NUMA nodes, and the tests of control groups, which are
# of version 2 there: Debian's kernel under QEMU's software emulation.
# usage: tests/numa-vm.sh [FILTER]   (a libtest filter for all of them)
#
# The machine has two nodes with memory, CPUs 0 and 3 on one and 1 and 2 on the other. CPU 4 is on a
# node without memory, nearer to the second. The script installs Debian packages that are missing;
# it only unpacks the kernel, below the target directory.
set -euo pipefail
cd "$(dirname "$0")/.."
vm=$(realpath -m "${CARGO_TARGET_DIR:-target}")/numa-vm
# Software emulation on a busy machine may be slow; the whole takes about 20 s on an idle one.
limit=600

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
[ -e /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || missing+=(busybox-static)
command -v cpio >/dev/null || missing+=(cpio)
command -v strip >/dev/null || missing+=(binutils)
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi
mkdir -p "$vm"
if ! compgen -G "$vm/kernel/boot/vmlinuz-*" >/dev/null; then
    apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get update -q
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    (cd "$vm" && apt-get download -q "$kernel" && dpkg-deb -x "$kernel"_*.deb kernel && rm "$kernel"_*.deb)
fi

root=$vm/root
rm -rf "$root"
mkdir -p "$root"/{bin,proc,sys,dev,tmp}
cp /bin/busybox "$root/bin/"
cargo test --quiet -p theap --test numa --test faults --test exhaustion --test fork --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | while read -r test; do
    name=$(basename "${test%-*}")
    strip -o "$root/$name" "$test"
    ldd "$test" | grep -o '/[^ ]*' | while read -r library; do
        install -D "$library" "$root$library"
    done
done
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin NUMA_VM=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
{
    /numa --test-threads=1 ${1:-} &&
        /faults --test-threads=1 --nocapture ${1:-_group_} &&
        /exhaustion --test-threads=1 --nocapture ${1:-_group_} &&
        /fork --test-threads=1 --nocapture ${1:-_group_}
} 2>&1
echo "numa-vm: exit \$?"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc) >"$vm/initrd"

log=$vm/log
node() { # NUMBER MEMORY CPU...
    echo "-object memory-backend-ram,id=m$1,size=$2"
    echo "-numa node,nodeid=$1,memdev=m$1$(printf ',cpus=%s' "${@:3}")"
}
# shellcheck disable=SC2046 # lists of words
timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 1024 -smp 5,maxcpus=6 \
    $(node 0 512M 0 3 5) $(node 1 512M 1 2) -numa node,nodeid=2,cpus=4 \
    -numa dist,src=0,dst=1,val=20 -numa dist,src=0,dst=2,val=30 -numa dist,src=1,dst=2,val=12 \
    -kernel "$vm"/kernel/boot/vmlinuz-* -initrd "$vm/initrd" \
    -append "console=ttyS0 quiet panic=-1" -nographic -no-reboot </dev/null |
    tr -d '\r' | sed -u 's/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\x1bc//g' | tee "$log" ||
    echo "numa-vm: the machine did not end by itself within $limit s" >&2
grep -q '^test result: ok\. [1-9]' "$log" && grep -qx 'numa-vm: exit 0' "$log" && ! grep skipped: "$log" || {
    echo "numa-vm: failed (log: $log)" >&2
    exit 1
}
