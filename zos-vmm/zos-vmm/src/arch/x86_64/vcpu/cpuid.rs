//! What a vCPU says of itself: what KVM offers, with a topology that is true and without what
//! strangers shall not have.
//!
//! Topology: one socket, a core for each vCPU, one thread for each core; APIC id = index.
//! (Intel SDM, CPUID; AMD APM volume 3, appendix E.)
//!
//! Left out: nested virtualization (VMX, SVM), performance counters and processor trace,
//! MONITOR/MWAIT, enclaves (SGX).

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const LEAF1_ECX_MONITOR: u32 = 1 << 3;
const LEAF1_ECX_VMX: u32 = 1 << 5;
const LEAF1_ECX_PDCM: u32 = 1 << 15;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
const LEAF7_EBX_SGX: u32 = 1 << 2;
const LEAF7_EBX_TRACE: u32 = 1 << 25;
const LEAF7_ECX_SGX_LC: u32 = 1 << 30;
const LEAF80000001_ECX_SVM: u32 = 1 << 2;
/// Extended counters of cores, of the north bridge, of the last level of cache.
const LEAF80000001_ECX_COUNTERS: u32 = 1 << 23 | 1 << 24 | 1 << 28;
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// Makes the entries those of vCPU `index` of `cpus`.
pub(super) fn adjust(cpuid: &mut CpuId, index: u16, cpus: u16) {
    // Extended topology has a subleaf for each level; KVM may list fewer.
    for (function, subleaf) in [(0x0b, 0), (0x0b, 1), (0x0b, 2)] {
        let missing = |e: &kvm_cpuid_entry2| e.function != function || e.index != subleaf;
        let highest = cpuid.as_slice().iter().find(|e| e.function == 0).map_or(0, |e| e.eax);
        if highest >= function && cpuid.as_slice().iter().all(missing) {
            let entry = kvm_cpuid_entry2 {
                function,
                index: subleaf,
                flags: 1, // KVM_CPUID_FLAG_SIGNIFCANT_INDEX
                ..Default::default()
            };
            // Full is impossible: KVM fills at most what the array was made for.
            let _ = cpuid.push(entry);
        }
    }
    // These say what 0b says, with dies and complexes; without them 0b counts.
    cpuid.retain(|entry| !matches!(entry.function, 0x1f | 0x8000_0026));
    cpuid.as_mut_slice().iter_mut().for_each(|entry| adjust_entry(entry, index, cpus));
}

fn adjust_entry(entry: &mut kvm_cpuid_entry2, index: u16, cpus: u16) {
    let (id, count) = (u32::from(index), u32::from(cpus));
    let bits = u16::BITS - (cpus - 1).leading_zeros();
    match (entry.function, entry.index) {
        (0x1, _) => {
            entry.ecx &= !(LEAF1_ECX_MONITOR | LEAF1_ECX_VMX | LEAF1_ECX_PDCM);
            entry.ecx |= LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
            entry.edx &= !LEAF1_EDX_HTT;
            if count > 1 {
                entry.edx |= LEAF1_EDX_HTT;
            }
            let logical = count.next_power_of_two().min(255);
            entry.ebx = entry.ebx & 0xffff | logical << 16 | (id & 0xff) << 24;
        }
        // Caches: how many share one, and how many cores there are in the package. Level 3 is
        // everybody's, the others a core's own.
        (0x4, _) if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14 | (count - 1).min(63) << 26;
        }
        (0x8000_001d, _) if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14;
        }
        // MONITOR; counters of Intel and AMD; SGX; processor trace; SVM.
        (0x5 | 0xa | 0x12 | 0x14 | 0x8000_000a | 0x8000_0022, _) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        (0x7, 0) => {
            entry.ebx &= !(LEAF7_EBX_SGX | LEAF7_EBX_TRACE);
            entry.ecx &= !LEAF7_ECX_SGX_LC;
        }
        (0xb, level) => {
            (entry.eax, entry.ebx, entry.ecx) = match level {
                0 => (0, 1, LEVEL_THREAD),
                1 => (bits, count, LEVEL_CORE | 1),
                _ => (0, 0, level),
            };
            entry.edx = id;
        }
        (0x8000_0001, _) => entry.ecx &= !(LEAF80000001_ECX_SVM | LEAF80000001_ECX_COUNTERS),
        (0x8000_0008, _) => entry.ecx = entry.ecx & !0xf0ff | bits << 12 | (count - 1).min(255),
        (0x8000_001e, _) => {
            (entry.eax, entry.ebx, entry.ecx) = (id, id & 0xff, 0);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpuid() -> CpuId {
        let entry = |function, index, eax| kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx: 0xffff_ffff,
            ecx: 0xffff_ffff,
            edx: 0xffff_ffff,
            ..Default::default()
        };
        let leaves = [
            (0, 0, 0x1f),
            (1, 0, 0),
            (4, 0, 0x121),
            (4, 3, 0x163),
            (7, 0, 0),
            (0xa, 0, 7),
            (0xb, 0, 0),
            (0x12, 0, 7),
            (0x1f, 0, 0),
            (0x8000_0001, 0, 0),
            (0x8000_0008, 0, 0),
            (0x8000_001d, 3, 0x163),
            (0x8000_001e, 0, 0),
            (0x8000_0022, 0, 7),
            (0x8000_0026, 0, 0),
        ];
        let leaves = leaves.map(|(function, index, eax)| entry(function, index, eax));
        CpuId::from_entries(&leaves).unwrap()
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid.as_slice().iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    /// Intel SDM, volume 2, CPUID: leaves 1, 4, 0b.
    #[test]
    fn topology_is_true_for_intels_way_to_read_it() {
        for (index, cpus) in (1..=128u16).flat_map(|cpus| [(0, cpus), (cpus - 1, cpus)]) {
            let mut cpuid = cpuid();
            adjust(&mut cpuid, index, cpus);
            let (id, count) = (u32::from(index), u32::from(cpus));
            let leaf = find(&cpuid, 1, 0);
            assert_eq!((leaf.ebx >> 24, leaf.edx & LEAF1_EDX_HTT != 0), (id, count > 1));
            let addressable = leaf.ebx >> 16 & 0xff;
            assert!(addressable >= count && addressable.is_power_of_two());
            // A core has one thread: the APIC id's bits above the thread level name the core.
            let (thread, core) = (find(&cpuid, 0xb, 0), find(&cpuid, 0xb, 1));
            assert_eq!((thread.eax, thread.ebx, thread.ecx, thread.edx), (0, 1, 0x100, id));
            assert_eq!((core.ebx, core.ecx, core.edx), (count, 0x201, id));
            assert!(1 << core.eax >= count && id >> core.eax == 0, "one package");
            assert_eq!((find(&cpuid, 0xb, 2).ebx, find(&cpuid, 0xb, 2).ecx), (0, 2));
            let share = |level| (find(&cpuid, 4, level).eax >> 14 & 0xfff) + 1;
            assert_eq!((share(0), share(3)), (1, count));
            assert_eq!((find(&cpuid, 4, 0).eax >> 26) + 1, count.min(64));
            assert!(cpuid.as_slice().iter().all(|e| e.function != 0x1f));
        }
    }

    /// AMD APM, volume 3, appendix E: functions 8000_0008, 8000_001d, 8000_001e.
    #[test]
    fn topology_is_true_for_amds_way_to_read_it() {
        for (index, cpus) in (1..=128u16).flat_map(|cpus| [(0, cpus), (cpus - 1, cpus)]) {
            let mut cpuid = cpuid();
            adjust(&mut cpuid, index, cpus);
            let (id, count) = (u32::from(index), u32::from(cpus));
            let sizes = find(&cpuid, 0x8000_0008, 0).ecx;
            assert_eq!((sizes & 0xff) + 1, count);
            assert!(1 << (sizes >> 12 & 0xf) >= count);
            assert_eq!((find(&cpuid, 0x8000_001d, 3).eax >> 14 & 0xfff) + 1, count);
            let core = find(&cpuid, 0x8000_001e, 0);
            assert_eq!((core.eax, core.ebx & 0xff, core.ebx >> 8 & 0xff, core.ecx), (id, id, 0, 0));
            assert!(cpuid.as_slice().iter().all(|e| e.function != 0x8000_0026));
        }
    }

    #[test]
    fn strangers_get_no_virtualization_and_no_counters() {
        let mut cpuid = cpuid();
        adjust(&mut cpuid, 0, 1);
        let leaf = find(&cpuid, 1, 0);
        assert_eq!(leaf.ecx & (LEAF1_ECX_VMX | LEAF1_ECX_MONITOR), 0);
        assert_ne!(leaf.ecx & LEAF1_ECX_HYPERVISOR, 0);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & LEAF80000001_ECX_SVM, 0);
        for leaf in [0xa, 0x12, 0x8000_0022] {
            assert_eq!(find(&cpuid, leaf, 0).eax, 0, "{leaf:#x}");
        }
        assert_eq!(find(&cpuid, 7, 0).ebx & (LEAF7_EBX_SGX | LEAF7_EBX_TRACE), 0);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & LEAF80000001_ECX_COUNTERS, 0);
    }
}
