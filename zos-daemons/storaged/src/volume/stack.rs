//! What a volume's device is made of, as the kernel's tables. Nothing here touches the machine.
//!
//! ```text
//!  none     file ─ loop ───────────────────────────────┐
//!  detect   file ─ loop ─┐                             ├─ dm-crypt "zos-<hash>" ─▶ the guest
//!           tags ─ loop ─┴─ dm-integrity "…-<pool>" ───┤
//!  repair   two of those, and a .raid file each ─ dm-raid "…-m"
//! ```
//! While a volume moves, a mirror "…-m" without a memory stands over its old and its new place.

use zos_host::dm::Target;
use zos_types::Bytes;
use zos_types::deployment::Integrity;

use super::files::Files;
use super::record::CIPHER;

/// A block of the kernel's tables.
const SECTOR: u64 = 512;
/// What one mark of a mirror's memory covers: what is copied again after a leg was away.
const REGION: u64 = 4 << 20;
/// The most marks that fit; dm-raid has this limit too.
const REGIONS: u64 = 1 << 21;

/// A device's number: major, minor.
pub type Number = (u32, u32);

/// A volume's device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stack {
    /// Its name; those below it begin so.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// What is done about bit rot.
    pub integrity: Integrity,
    /// Its places.
    pub legs: Vec<Leg>,
}

/// One place of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leg {
    /// The pool.
    pub pool: String,
    /// Its files; none: the pool is not here.
    pub files: Option<Files>,
    /// The logical block of the disk below, in bytes.
    pub block: u32,
    /// It missed writes: it is read by nobody before it was written anew.
    pub stale: bool,
}

impl Stack {
    /// The name of the mirror.
    pub fn mirror(&self) -> String {
        mirror(&self.name)
    }

    /// The name of a leg that sees bit rot.
    pub fn leg(&self, leg: &Leg) -> String {
        format!("{}-{}", self.name, leg.pool)
    }

    fn sectors(&self) -> u64 {
        self.size.0 / SECTOR
    }

    /// Checksums beside the data. A bitmap says where both may differ after a power cut; there they
    /// are computed anew.
    pub fn integrity(&self, data: Number, tags: Number) -> Target {
        let tags = format!("meta_device:{}", text(tags));
        let hash = "internal_hash:crc32c block_size:4096 journal_sectors:4096 allow_discards";
        self.target("integrity", format!("{} 0 - B 5 {tags} {hash}", text(data)))
    }

    /// The mirror: of each leg its memory and its data, none when it is away. `new`: both legs are
    /// equal and have no memory yet.
    pub fn raid(&self, legs: &[Option<(Option<Number>, Number)>], new: bool) -> Target {
        let region = (self.size.0 / REGIONS).next_power_of_two().max(REGION) / SECTOR;
        let mut words = vec!["0".to_owned()];
        if new {
            words.push("nosync".to_owned());
        }
        words.extend(["region_size".to_owned(), region.to_string()]);
        for (index, (leg, device)) in self.legs.iter().zip(legs).enumerate() {
            if leg.stale && device.is_some() {
                words.extend(["rebuild".to_owned(), index.to_string()]);
            }
        }
        let mut params = format!("raid1 {} {} {}", words.len(), words.join(" "), legs.len());
        for leg in legs {
            let (memory, data) = leg.unzip();
            let word = |number: Option<Number>| number.map_or("-".to_owned(), text);
            params.push_str(&format!(" {} {}", word(memory.flatten()), word(data)));
        }
        self.target("raid", params)
    }

    /// The encryption over all. `key` in hexadecimal.
    pub fn crypt(&self, key: &str, below: Number) -> Target {
        self.target("crypt", format!("{CIPHER} {key} 0 {} 0", text(below)))
    }

    fn target(&self, kind: &str, params: String) -> Target {
        Target { start: 0, length: self.sectors(), kind: kind.to_owned(), params }
    }
}

/// The name of the mirror under a volume's device.
pub fn mirror(name: &str) -> String {
    format!("{name}-m")
}

/// A number as tables have it.
pub fn text((major, minor): Number) -> String {
    format!("{major}:{minor}")
}

/// What the kernel tells of a volume's device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// Of a mirror.
    pub mirror: Option<Mirror>,
    /// Blocks that were not what their checksum says, over all legs, since it was opened.
    pub mismatches: u64,
}

/// What the kernel tells of a mirror.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// A letter for each leg: `A` whole, `a` being written, `D` failed, `-` away.
    pub health: String,
    /// How far the copy is made.
    pub done: u64,
    /// How far it is to be made.
    pub total: u64,
    /// What it does: `idle`, `recover`, `resync`.
    pub action: String,
}

impl Mirror {
    /// Whether each leg holds all that was written.
    pub fn is_whole(&self) -> bool {
        self.health.bytes().all(|leg| leg == b'A')
            && self.done == self.total
            && self.action == "idle"
    }

    /// Of dm-raid's status line (Documentation/admin-guide/device-mapper/dm-raid.rst):
    /// `raid1 2 AA 1024/1024 idle 0 0 -`.
    pub fn parse(status: &str) -> Option<Self> {
        let words: Vec<&str> = status.split_whitespace().collect();
        let [_, _, health, ratio, action, ..] = words[..] else { return None };
        let (done, total) = ratio.split_once('/')?;
        Some(Self {
            health: health.to_owned(),
            done: done.parse().ok()?,
            total: total.parse().ok()?,
            action: action.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zos_types::unit::{GIB, TIB};

    fn stack(stale: &[bool]) -> Stack {
        let leg = |(index, stale): (usize, &bool)| {
            let pool = format!("p{index}");
            Leg { pool, files: None, block: 512, stale: *stale }
        };
        let legs = stale.iter().enumerate().map(leg).collect();
        Stack { name: "zos-1".into(), size: Bytes(GIB), integrity: Integrity::Repair, legs }
    }

    #[test]
    fn tables() {
        let check = |target: Target, kind: &str, params: &str| {
            assert_eq!((target.start, target.length, &*target.kind), (0, 2_097_152, kind));
            assert_eq!(target.params, params);
        };
        let both = stack(&[false, false]);
        check(both.crypt("00ff", (253, 3)), "crypt", "aes-xts-plain64 00ff 0 253:3 0");
        check(
            both.integrity((7, 1), (7, 2)),
            "integrity",
            "7:1 0 - B 5 meta_device:7:2 internal_hash:crc32c block_size:4096 journal_sectors:4096 \
             allow_discards",
        );
        let leg = |n: u32| Some((Some((7, n)), (253, n)));
        let raid = |stack: Stack, legs: &[_], new, params: &str| {
            check(stack.raid(legs, new), "raid", params);
        };
        raid(
            stack(&[false, false]),
            &[leg(0), leg(1)],
            true,
            "raid1 4 0 nosync region_size 8192 2 7:0 253:0 7:1 253:1",
        );
        raid(
            stack(&[false, true]),
            &[leg(0), leg(1)],
            false,
            "raid1 5 0 region_size 8192 rebuild 1 2 7:0 253:0 7:1 253:1",
        );
        raid(
            stack(&[false, true]),
            &[leg(0), None],
            false,
            "raid1 3 0 region_size 8192 2 7:0 253:0 - -",
        );
        raid(
            stack(&[false, true]),
            &[Some((None, (253, 0))), Some((None, (253, 1)))],
            false,
            "raid1 5 0 region_size 8192 rebuild 1 2 - 253:0 - 253:1",
        );
        let large = Stack { size: Bytes(64 * TIB), ..stack(&[false, false]) };
        assert!(large.raid(&[leg(0), leg(1)], false).params.contains("region_size 65536 "));
    }

    #[test]
    fn what_the_kernel_says_of_a_mirror() {
        let check = |status: &str, whole: Option<bool>| {
            assert_eq!(Mirror::parse(status).map(|mirror| mirror.is_whole()), whole, "{status}");
        };
        check("raid1 2 AA 2097152/2097152 idle 0 0 -", Some(true));
        check("raid1 2 Aa 1024/2097152 recover 0 0 -", Some(false));
        check("raid1 2 aa 1024/2097152 resync 0 0 -", Some(false));
        check("raid1 2 AD 2097152/2097152 idle 0 0 -", Some(false));
        check("raid1 2 A- 2097152/2097152 idle 0 0 -", Some(false));
        check("", None);
        check("raid1 2 AA x/y idle", None);
    }
}
