//! The whole image, built twice from the same inputs: the same bytes, and each form holds what it should.
//!
//! Runs offline, with the kernels and packages of the user's cache; on a machine that hasn't built an image yet there is
//! nothing to compare, and the test says so.

use std::path::Path;

use image_builder::arch::Arch;
use image_builder::cache::{Cache, hash};
use image_builder::fetch::Fetcher;
use image_builder::image::{self, Order};
use image_builder::kernel::{self, Flavour};
use image_builder::manifest::Manifest;
use image_builder::project::Project;
use object::{Object as _, ObjectSection as _};

const ARCH: Arch = Arch::X86_64;

/// A static program as far as the builder looks: an ELF header without segments or sections (System V gABI, ch. 4).
fn program(salt: u8) -> Vec<u8> {
    let mut elf =
        vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0];
    elf.resize(52, 0);
    elf.extend([64, 0, 56, 0, 0, 0, 64, 0, 0, 0, 0, 0]);
    elf.resize(5000, salt);
    elf
}

/// A cache with the user's packages and kernels, but nothing compressed yet.
fn cold(user: &Cache, root: &Path) -> Cache {
    std::fs::create_dir_all(root).unwrap();
    for shelf in ["blobs", "trees", "kernels"] {
        std::os::unix::fs::symlink(user.root().join(shelf), root.join(shelf)).unwrap();
    }
    Cache::at(root.to_owned())
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let project = Project::around(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let user = Cache::of_user().unwrap();
    let fetcher = Fetcher::open(&project, user.clone(), true).unwrap();
    let built = |flavour| matches!(kernel::cached(&project, &fetcher, ARCH, flavour), Ok(Some(_)));
    if !Flavour::ALL.into_iter().all(built) {
        eprintln!("skipped: the kernels aren't in the cache; run `image-builder image` first");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let programs = dir.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    for (name, salt) in
        [("zos-init", 1), ("zosd", 2), ("zos-vmm", 3), ("zos-virtiofsd", 4), ("zos-guest", 5)]
    {
        std::fs::write(programs.join(name), program(salt)).unwrap();
    }
    let build = |name: &str| {
        let fetcher = Fetcher::open(&project, cold(&user, &dir.path().join(name)), true).unwrap();
        let out = dir.path().join(format!("{name}-out"));
        let order = Order { arch: ARCH, out, programs: Some(programs.clone()) };
        image::build(&project, &fetcher, &order).unwrap()
    };
    let ((a, manifest), (b, _)) = (build("a"), build("b"));

    let text = std::fs::read_to_string(a.join("manifest.json")).unwrap();
    assert_eq!(text, std::fs::read_to_string(b.join("manifest.json")).unwrap());
    let written: Manifest = serde_json::from_str(&text).unwrap();
    assert_eq!(written.image, manifest.image);
    for (name, output) in &written.files {
        let bytes = std::fs::read(a.join(name)).unwrap();
        assert_eq!((output.size, &output.sha256), (bytes.len() as u64, &hash(&bytes)), "{name}");
        assert!(bytes == std::fs::read(b.join(name)).unwrap(), "{name} differs");
    }

    let uki = std::fs::read(a.join("zos.efi")).unwrap();
    let parsed = object::File::parse(uki.as_slice()).unwrap();
    for (section, file) in [(".initrd", "initramfs.img"), (".linux", "vmlinuz")] {
        let wanted = std::fs::read(a.join(file)).unwrap();
        let data = parsed.section_by_name(section).unwrap().data().unwrap();
        assert!(data[..wanted.len()] == wanted[..], "{section} isn't {file}");
    }
    assert!(parsed.section_by_name(".cmdline").is_none(), "a loader's arguments would lose to it");
}
