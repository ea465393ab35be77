//! The wired NICs, read from sysfs; a directory of fixtures is a machine.
//!
//! A NIC is Ethernet (`type` 1) with a device behind it. So loopback, bridges, taps, VLANs and veths
//! aren't NICs; neither is what says `phy80211`, since a node has no wireless uplink. A link that the
//! farmer names (`zos.nic=NAME`) needs no device: some virtual machines have such NICs.

use zos_host::SysRoot;

use crate::settings::Settings;

/// A wired NIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// The kernel's name in this boot.
    pub name: String,
    /// The kernel's number.
    pub index: u32,
    /// The hardware address.
    pub mac: [u8; 6],
    /// The device behind it, from bus to bus: `…/pci0000:00/0000:00:03.0/virtio0`.
    pub path: String,
    /// Whether somebody is at the cable's other end; only known while the NIC is up.
    pub carrier: bool,
}

/// The NICs, in the order of their devices' paths, which is the same at each boot of one machine.
pub fn read(root: &SysRoot, settings: &Settings) -> Vec<Nic> {
    let names = root.list("/sys/class/net").unwrap_or_default();
    let named = settings.nic.as_deref();
    let mut nics: Vec<Nic> = names.into_iter().filter_map(|name| nic(root, named, name)).collect();
    nics.sort_by(|a, b| (&a.path, a.index).cmp(&(&b.path, b.index)));
    nics
}

fn nic(root: &SysRoot, named: Option<&str>, name: String) -> Option<Nic> {
    let base = format!("/sys/class/net/{name}");
    let attribute = |key: &str| root.attribute(format!("{base}/{key}"));
    let has = |key: &str| root.exists(format!("{base}/{key}"));
    let wired = attribute("type").as_deref() == Some("1")
        && (has("device") || named.is_some_and(|named| named.eq_ignore_ascii_case(&name)))
        && !has("phy80211")
        && !has("tun_flags")
        && !has("bridge");
    if !wired {
        return None;
    }
    let path = std::fs::canonicalize(root.path(format!("{base}/device")))
        .map_or_else(|_| name.clone(), |path| path.to_string_lossy().into_owned());
    Some(Nic {
        index: attribute("ifindex")?.parse().ok()?,
        mac: parse_mac(&attribute("address")?)?,
        path,
        carrier: attribute("carrier").as_deref() == Some("1"),
        name,
    })
}

/// Whether the farmer lets the node use this NIC.
pub fn wanted(nic: &Nic, settings: &Settings) -> bool {
    settings.nic.as_ref().is_none_or(|word| {
        *word == mac_text(nic.mac)
            || *word == nic.name.to_ascii_lowercase()
            || nic.path.to_ascii_lowercase().split('/').any(|part| part == word)
    })
}

/// A hardware address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The hardware address of such a text; none for a group's address.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let mac: [u8; 6] = bytes?.try_into().ok()?;
    (mac[0] & 1 == 0).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A link as sysfs shows it: name, attributes, device path.
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);

    fn machine(rows: &[Row<'_>]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, attributes, device) in rows {
            let base = dir.path().join("sys/class/net").join(name);
            fs::create_dir_all(&base).unwrap();
            for (key, value) in *attributes {
                fs::write(base.join(key), format!("{value}\n")).unwrap();
            }
            if let Some(device) = device {
                std::os::unix::fs::symlink(format!("../../../{device}"), base.join("device"))
                    .unwrap();
                fs::create_dir_all(dir.path().join("sys").join(device)).unwrap();
            }
        }
        dir
    }

    #[test]
    fn only_wired_nics_are_nics_and_their_order_is_the_bus() {
        let ether = |index: &'static str, mac: &'static str| {
            [("type", "1"), ("ifindex", index), ("address", mac), ("carrier", "1")]
        };
        let dir = machine(&[
            ("lo", &[("type", "772"), ("ifindex", "1"), ("address", "00:00:00:00:00:00")], None),
            ("eth0", &ether("2", "52:54:00:00:00:02"), Some("devices/0000:00:05.0/virtio2")),
            ("eth1", &ether("3", "52:54:00:00:00:01"), Some("devices/0000:00:03.0/virtio11")),
            ("zvm0", &ether("4", "02:00:00:00:00:01"), None),
            ("ib0", &[("type", "32"), ("ifindex", "5"), ("address", "52:54:00:00:00:07")], None),
        ]);
        fs::create_dir_all(dir.path().join("sys/class/net/wlan0/phy80211")).unwrap();
        let nics = read(&SysRoot::at(dir.path()), &Settings::default());
        let names: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).collect();
        assert_eq!(names, ["eth1", "eth0"]);
        assert_eq!(nics[0].index, 3);

        let check = |word: &str, expected: &[&str]| {
            let settings = Settings { nic: Some(word.to_owned()), ..Settings::default() };
            let found = nics.iter().filter(|nic| wanted(nic, &settings));
            assert_eq!(found.map(|nic| nic.name.as_str()).collect::<Vec<_>>(), expected, "{word}");
        };
        check("52:54:00:00:00:02", &["eth0"]);
        check("0000:00:03.0", &["eth1"]);
        check("virtio2", &["eth0"]);
        check("eth1", &["eth1"]);
        check("eth7", &[]);
    }

    #[test]
    fn hardware_addresses_are_read_as_they_are_written() {
        assert_eq!(parse_mac("52:54:00:0a:ff:01"), Some([0x52, 0x54, 0, 0x0a, 0xff, 1]));
        assert_eq!(parse_mac(&mac_text([2, 0, 0, 0, 0, 1])), Some([2, 0, 0, 0, 0, 1]));
        for bad in ["", "52:54", "52:54:00:0a:ff:01:02", "xx:54:00:0a:ff:01", "01:00:5e:00:00:01"] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
