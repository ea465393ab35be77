# Runs on the machine that builds, once Debian's packages are in the folder $1: what a person would set by hand.
set -eu
root=$1
echo guest > "$root/etc/hostname"
echo '/dev/vda / ext4 rw,relatime 0 1' > "$root/etc/fstab"
# Empty, and not absent: a machine that is new at each start, and that asks nobody anything.
: > "$root/etc/machine-id"
cat > "$root/etc/systemd/network/10-wired.network" <<'END'
[Match]
Type=ether
[Network]
Address=10.77.0.2/24
Gateway=10.77.0.1
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=no
END
# What a test brings along: a script on a disk that is called so.
cat > "$root/etc/systemd/system/script.service" <<'END'
[Unit]
Description=What a test brings along
Requires=dev-disk-by\x2did-virtio\x2dscript.device
After=dev-disk-by\x2did-virtio\x2dscript.device multi-user.target systemd-networkd.service
[Service]
Type=exec
ExecStart=/bin/sh /dev/disk/by-id/virtio-script
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
END
chroot "$root" systemctl enable -q systemd-networkd.service script.service
