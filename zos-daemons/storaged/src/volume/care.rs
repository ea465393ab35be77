//! How volumes do, and what is done for a copy that went, failed or came back.
//!
//! ```text
//!  every half a minute, of volumes with checksums that are open:
//!    a copy is away or failed    noted as stale
//!    it is back                  joined again, written anew from the other
//!    it is away for long         another disk takes its place, if one has room
//!    it is whole again           noted as whole
//! ```

use std::sync::Arc;
use std::time::Duration;

use zos_daemon::CallError;
use zos_types::deployment::Integrity;
use zos_types::volume::{Footprint, VolumeCondition, VolumeState};
use zos_types::{TwinId, WorkloadName};

use super::place;
use super::port::Change;
use super::record::Standing;
use super::stack::{Look, Mirror};
use super::{Held, Id, Volumes, blocking, is_mirrored};

/// How often open volumes are looked at.
pub const EVERY: Duration = Duration::from_secs(30);
/// How often a copy that failed is tried again while the volume is open.
const TRIES: u8 = 3;

/// After so many looks another disk takes the place of one that is away: ten minutes.
const AWAY: u8 = 20;

/// One place of a volume, as its condition sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The pool.
    pub pool: String,
    /// It is here.
    pub here: bool,
    /// Its copy has all that was written.
    pub whole: bool,
    /// Its disk fails.
    pub failing: bool,
}

/// How a volume does.
pub fn condition(standing: &Standing, places: &[Place], look: Option<&Look>) -> VolumeCondition {
    let is = |state, reason: String| VolumeCondition { state, reason };
    if let Standing::Waits(why) | Standing::Broken(why) = standing {
        return is(VolumeState::Broken, why.clone());
    }
    let away: Vec<&str> = places.iter().filter(|p| !p.here).map(|p| &*p.pool).collect();
    if !places.iter().any(|place| place.here && place.whole) {
        let why = if away.is_empty() {
            "no copy of it is whole".to_owned()
        } else {
            format!("pool {} is not here", away.join(", "))
        };
        return is(VolumeState::Broken, why);
    }
    if let Some(place) = places.iter().find(|place| !place.here) {
        return is(VolumeState::AtRisk, format!("its copy on pool {} is away", place.pool));
    }
    let mirror = look.and_then(|look| look.mirror.as_ref());
    let failed =
        mirror.and_then(|mirror| places.iter().zip(mirror.health.chars()).find(|(_, c)| *c == 'D'));
    if let Some((place, _)) = failed {
        return is(VolumeState::AtRisk, format!("its copy on pool {} failed", place.pool));
    }
    if let Some(place) = places.iter().find(|place| place.failing) {
        return is(VolumeState::AtRisk, format!("the disk of pool {} fails", place.pool));
    }
    match mirror {
        Some(mirror) if !mirror.is_whole() && places.len() > 1 => {
            return is(
                VolumeState::Rebuilding,
                format!("its copies are made equal, {}", percent(mirror)),
            );
        }
        _ => {}
    }
    if let (Some(place), None) = (places.iter().find(|place| !place.whole), mirror) {
        let why = format!("its copy on pool {} is made anew once it is in use", place.pool);
        return is(VolumeState::AtRisk, why);
    }
    match look {
        Some(look) if look.mismatches > 0 && places.len() == 1 => {
            let why =
                format!("{} reads found blocks that had changed on the disk", look.mismatches);
            is(VolumeState::AtRisk, why)
        }
        _ => VolumeCondition::ready(),
    }
}

fn percent(mirror: &Mirror) -> String {
    let done = u128::from(mirror.done) * 100 / u128::from(mirror.total.max(1));
    format!("{done} % done")
}

impl Volumes {
    /// Looks after volumes for as long as it lives.
    pub async fn care(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.look_after().await;
        }
    }

    /// Looks after each volume that is open and has checksums.
    pub async fn look_after(&self) {
        let ids: Vec<Id> = {
            let table = self.table();
            let cared = table.entries.iter().filter(|(_, entry)| {
                !entry.making && entry.record().is_some_and(|r| r.integrity != Integrity::None)
            });
            cared.map(|(id, _)| id.clone()).collect()
        };
        for id in ids {
            self.look_at(&id).await;
            if let Err(error) = self.mend(&id).await {
                tracing::warn!("look after volume {} of {}: {error}", id.1, id.0.short());
            }
        }
    }

    /// Does what the state of a mirror asks for.
    async fn mend(&self, id: &Id) -> Result<(), CallError> {
        let mirror = {
            let table = self.table();
            let entry = table.entries.get(id).filter(|entry| !entry.moving);
            entry.and_then(|entry| entry.look.as_ref()?.mirror.clone())
        };
        let Some(mirror) = mirror else { return Ok(()) };
        let mut held = self.hold(id).await?;
        if !is_mirrored(&held.record) {
            return Ok(());
        }
        let legs = self.stack(&held.record).legs;
        let lost: Vec<String> = legs
            .iter()
            .zip(mirror.health.chars())
            .filter(|(leg, health)| !leg.stale && (leg.files.is_none() || *health == 'D'))
            .map(|(leg, _)| leg.pool.clone())
            .collect();
        if !lost.is_empty() && lost.len() < legs.len() {
            tracing::warn!(
                "volume {} of {} lost its copy on {}",
                id.1,
                id.0.short(),
                lost.join(", ")
            );
            let gone = legs.iter().any(|leg| leg.files.is_none() && lost.contains(&leg.pool));
            self.write(&mut held, |record| record.stale.extend(lost)).await?;
            // Lets go of the pool that went: as long as a file of it is open it can't be mounted again.
            return if gone { self.rejoin(&held).await } else { Ok(()) };
        }
        let all_here = legs.iter().all(|leg| leg.files.is_some());
        if !held.record.stale.is_empty() && all_here && mirror.is_whole() {
            tracing::info!("volume {} of {} has two whole copies again", id.1, id.0.short());
            self.count(id, |entry| (entry.tries, entry.away) = (0, 0));
            return self.write(&mut held, |record| record.stale.clear()).await;
        }
        let out = |(leg, health): (&super::Leg, char)| {
            leg.stale && leg.files.is_some() && matches!(health, 'D' | '-')
        };
        if legs.iter().zip(mirror.health.chars()).any(out) {
            let tries = self.count(id, |entry| entry.tries = entry.tries.saturating_add(1));
            if tries.is_none_or(|(tries, _)| tries > TRIES) {
                return Ok(());
            }
            tracing::info!("volume {} of {} is copied to a second disk again", id.1, id.0.short());
            return self.rejoin(&held).await;
        }
        let Some(away) = legs.iter().find(|leg| leg.stale && leg.files.is_none()) else {
            return Ok(());
        };
        let looks = self.count(id, |entry| entry.away = entry.away.saturating_add(1));
        if looks.is_some_and(|(_, looks)| looks >= AWAY) {
            self.replace_leg(&mut held, &away.pool.clone()).await?;
        }
        Ok(())
    }

    /// Counts something of a volume; gives its tries, and how often a copy was found away.
    fn count(&self, id: &Id, change: impl FnOnce(&mut super::Entry)) -> Option<(u8, u8)> {
        let mut table = self.table();
        let entry = table.entries.get_mut(id)?;
        change(entry);
        Some((entry.tries, entry.away))
    }

    /// Reads both copies of a volume that is open, block by block, and mends one from the other. Ends at once
    /// for volumes without a second copy.
    pub async fn verify(&self, twin: TwinId, name: WorkloadName) -> Result<(), CallError> {
        let id = (twin, name);
        let held = self.hold(&id).await?;
        self.look_at(&id).await;
        let is_whole = |volumes: &Self| {
            let table = volumes.table();
            let look = table.entries.get(&id).and_then(|entry| entry.look.as_ref());
            look.and_then(|look| look.mirror.as_ref()).map(Mirror::is_whole)
        };
        if !is_mirrored(&held.record) || is_whole(self) != Some(true) {
            return Ok(());
        }
        let (devices, device) = (Arc::clone(&self.devices), super::device::name(&id.0, &id.1));
        blocking("check", &id, move || devices.verify(&device)).await?;
        // Its user may close it meanwhile.
        drop(held);
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.look_at(&id).await;
            if is_whole(self) != Some(false) {
                return Ok(());
            }
        }
    }

    /// Gives an open mirror the legs of its record.
    pub(super) async fn rejoin(&self, held: &Held) -> Result<(), CallError> {
        self.ready_stale(held).await?;
        let (devices, stack) = (Arc::clone(&self.devices), self.stack(&held.record));
        blocking("join the copies of", &held.id, move || devices.change(&stack, Change::Legs))
            .await?;
        self.look_at(&held.id).await;
        Ok(())
    }

    /// Takes another disk for a copy.
    pub(super) async fn replace_leg(&self, held: &mut Held, old: &str) -> Result<(), CallError> {
        let footprint = Footprint::of(held.record.set_aside(), held.record.integrity);
        let one = Footprint { copies: 1, ..footprint };
        let rooms = self.rooms();
        let class = held.record.class;
        let Ok(found) = place::place_beside(&rooms, class, one, &held.record.legs) else {
            return Ok(());
        };
        let new = found.pools.concat();
        self.reserve(&held.id, vec![(new.clone(), footprint.each)])?;
        let noted = self
            .write(held, |record| {
                for leg in record.legs.iter_mut().filter(|leg| *leg == old) {
                    leg.clone_from(&new);
                }
                record.stale.retain(|leg| leg != old);
                record.stale.push(new.clone());
                record.placed = format!("in place of pool {old}: {}", found.reason);
            })
            .await;
        self.settle(&held.id);
        noted?;
        tracing::info!("volume {} of {} takes pool {new} for {old}", held.id.1, held.id.0.short());
        self.rejoin(held).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::record::Record;
    use zos_types::Bytes;
    use zos_types::deployment::Class;

    fn place(word: &str) -> Place {
        let pool = word[..1].to_owned();
        let has = |letter: char| word[1..].contains(letter);
        Place { pool, here: !has('-'), whole: !has('s'), failing: has('f') }
    }

    #[test]
    fn conditions() {
        let twin = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy".parse().unwrap();
        let record = Record::new(twin, "web/data".parse().unwrap(), Bytes(4096), Class::Ssd);
        let leads = Standing::Leads(Box::new(record));
        let check = |places: &str, mirror: Option<&str>, mismatches, state, reason: &str| {
            let places: Vec<Place> = places.split_whitespace().map(place).collect();
            let mirror = mirror.map(|status| Mirror::parse(status).unwrap());
            let open = mirror.is_some() || mismatches > 0;
            let look = open.then_some(Look { mirror, mismatches });
            let found = condition(&leads, &places, look.as_ref());
            assert_eq!(found, VolumeCondition { state, reason: reason.into() }, "{places:?}");
        };
        let whole = Some("raid1 2 AA 8/8 idle 0 0 -");
        check("a", None, 0, VolumeState::Ready, "");
        check("af", None, 0, VolumeState::AtRisk, "the disk of pool a fails");
        check("a-", None, 0, VolumeState::Broken, "pool a is not here");
        let changed = "3 reads found blocks that had changed on the disk";
        check("a", None, 3, VolumeState::AtRisk, changed);
        check("a b", whole, 0, VolumeState::Ready, "");
        check("a b", whole, 3, VolumeState::Ready, "");
        check("a b-", None, 0, VolumeState::AtRisk, "its copy on pool b is away");
        check("as b-", None, 0, VolumeState::Broken, "pool b is not here");
        check("as bs", None, 0, VolumeState::Broken, "no copy of it is whole");
        let once = "its copy on pool b is made anew once it is in use";
        check("a bs", None, 0, VolumeState::AtRisk, once);
        let recover = Some("raid1 2 Aa 2/8 recover 0 0 -");
        let going = "its copies are made equal, 25 % done";
        check("a bs", recover, 0, VolumeState::Rebuilding, going);
        check("a b", Some("raid1 2 aa 2/8 resync 0 0 -"), 0, VolumeState::Rebuilding, going);
        let failed = "its copy on pool b failed";
        check("a b", Some("raid1 2 AD 8/8 idle 0 0 -"), 0, VolumeState::AtRisk, failed);
        let waits = condition(&Standing::Waits("for b".into()), &[place("a")], None);
        assert_eq!(waits, VolumeCondition { state: VolumeState::Broken, reason: "for b".into() });
    }
}
