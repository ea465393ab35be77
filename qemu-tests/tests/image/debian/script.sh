# What the guest does, as root, when systemd has reached its multi-user target. Each step says `TEST ok NAME ...` or
# `TEST failed NAME ...`; `TEST end` is the last word. The disk that this is read from ends in spaces.
say() { printf '\nTEST %s\n' "$*" > /dev/ttyS0; } # opened for each line: a login prompt hangs up whoever had it open before
step() { # NAME, command...
    name=$1
    shift
    if output=$("$@" 2>&1); then
        say ok "$name" "$(echo "$output" | tail -n 1)"
    else
        say failed "$name"
        echo "$output" | tail -n 30 > /dev/ttyS0
    fi
}

multi_user() {
    systemctl is-active multi-user.target && systemctl is-active systemd-logind.service || return
    # A unit that fails here and not elsewhere has found something about the machine.
    systemctl --failed --plain --no-legend | grep . && return 1
    uname -r
}
root() {
    grep -q '^/dev/vda / ext4 rw' /proc/mounts || return
    dd if=/dev/urandom of=/var/tmp/some bs=64k count=16 2>/dev/null && sync || return
    sum=$(sha256sum < /var/tmp/some)
    echo 3 > /proc/sys/vm/drop_caches
    [ "$sum" = "$(sha256sum < /var/tmp/some)" ]
}
network() {
    /usr/lib/systemd/systemd-networkd-wait-online --timeout=120
    if ! ip -4 -o address show scope global | grep 10.77.0.2/24; then
        ip address
        networkctl --no-pager status --all
        journalctl -q --no-pager -u systemd-networkd -n 20
        return 1
    fi
    ping -q -c 5 -i 0.2 10.77.0.1
}
throughput() { # PORT, options: a server that has just started may take a moment
    port=$1
    shift
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        iperf3 -c 10.77.0.1 -p "$port" -t 2 -f m "$@" | grep receiver && return
        sleep 1
    done
    return 1
}
verify() { # ENGINE: in a file with a file system around it, past the page cache
    fio --name=check --filename=/mnt/check --size=8m --rw=randwrite --bs=4k --direct=1 --ioengine="$1" --iodepth=16 \
        --verify=crc32c --do_verify=1 --verify_fatal=1 --minimal || return
    rm /mnt/check
}
trim() { fstrim -v /mnt | grep -v ': 0 B'; }
share() { # a folder of the node, written on both sides
    mkdir -p /srv/share && mount -t virtiofs share /srv/share || return
    [ "$(cat /srv/share/from-node)" = 'hello from the node' ] || return
    dd if=/dev/urandom of=/srv/share/some bs=64k count=16 2>/dev/null && sync || return
    sum=$(sha256sum < /srv/share/some)
    echo 3 > /proc/sys/vm/drop_caches
    [ "$sum" = "$(sha256sum < /srv/share/some)" ] || return
    echo 'hello from the guest' > /srv/share/from-guest
    umount /srv/share
}
interrupts() { grep -c virtio /proc/interrupts; }
entropy() { grep -q virtio_rng /sys/class/misc/hw_random/rng_available && head -c 64 /dev/hwrng | wc -c; }

step multi-user multi_user
say clock "$(date +%s)"
step root root
step network network
step iperf3 throughput 5201
step iperf3-back throughput 5202 -R
step mount mount /dev/disk/by-id/virtio-data /mnt
step fio-libaio verify libaio
step fio-io_uring verify io_uring
step virtiofs share
step interrupts interrupts
step entropy entropy
step stress-ng stress-ng --cpu 1 --vm 1 --vm-bytes 32m --hdd 1 --hdd-bytes 4m --switch 1 --timeout 5 --verify --metrics-brief --temp-path /mnt
step fstrim trim
step unmount umount /mnt
step log sh -c '! dmesg --level=emerg,alert,crit,err | grep .'
say end
exit 0
