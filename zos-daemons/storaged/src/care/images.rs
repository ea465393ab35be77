//! Images that are deleted for room: everything under `@images` may be fetched again.
//!
//! ```text
//!  @images/<image>   a file, or a folder of them ── oldest use first ── open? left ── enough? end
//! ```
//! Who uses an image holds a shared lock on it (flock(2)), which lasts as long as the open file does, in
//! whatever process: a VM that was given the descriptor keeps its image. The use of an image is its younger
//! time, of reading or of writing; the pools are mounted without times of reading, so a user sets it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FlockOperation;

/// One image.
struct Image {
    path: PathBuf,
    used: SystemTime,
    size: u64,
}

/// Deletes images until this many bytes are free again; says how many are. `root` is the pool's.
pub fn collect(root: &Path, wanted: u64) -> io::Result<u64> {
    let mut images = list(&root.join("@images"))?;
    images.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut freed = 0_u64;
    for image in images {
        if freed >= wanted {
            break;
        }
        if delete(&image.path)? {
            tracing::info!("deleted image {} for room", image.path.display());
            freed = freed.saturating_add(image.size);
        }
    }
    Ok(freed)
}

fn list(folder: &Path) -> io::Result<Vec<Image>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut images = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let (used, size) = measure(&path)?;
        images.push(Image { path, used, size });
    }
    Ok(images)
}

/// The last use, and the bytes on disk, of a file or of all in a folder.
fn measure(path: &Path) -> io::Result<(SystemTime, u64)> {
    let about = fs::symlink_metadata(path)?;
    let mut used = about.modified()?.max(about.accessed()?);
    let mut size = about.blocks().saturating_mul(512);
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            let (inside, more) = measure(&entry?.path())?;
            (used, size) = (used.max(inside), size.saturating_add(more));
        }
    }
    Ok((used, size))
}

/// Deletes an image, unless something in it is in use. What is locked here can't be taken into use meanwhile.
fn delete(path: &Path) -> io::Result<bool> {
    let mut held = Vec::new();
    if !hold(path, &mut held)? {
        return Ok(false);
    }
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_file(path)?;
    }
    Ok(true)
}

fn hold(path: &Path, held: &mut Vec<File>) -> io::Result<bool> {
    let about = fs::symlink_metadata(path)?;
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            if !hold(&entry?.path(), held)? {
                return Ok(false);
            }
        }
    } else if about.is_file() {
        let file = File::open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => held.push(file),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn image(root: &Path, name: &str, age: u64) -> PathBuf {
        let path = root.join("@images").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![1; 100 << 10]).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age * 3600);
        let times = fs::FileTimes::new().set_modified(then).set_accessed(then);
        File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        path
    }

    fn left(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root.join("@images")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_go_first_and_what_is_open_stays() {
        let pool = tempfile::tempdir().unwrap();
        let root = pool.path();
        assert_eq!(collect(root, 1).unwrap(), 0, "no images at all");
        for (name, age) in [("a", 3), ("b", 9), ("c", 1), ("d", 20)] {
            image(root, name, age);
        }
        let open = File::open(root.join("@images/d")).unwrap();
        rustix::fs::flock(&open, FlockOperation::LockShared).unwrap();
        // A copy of the descriptor holds it too, as a VM's does.
        let passed = open.try_clone().unwrap();
        drop(open);
        assert!(collect(root, 1).unwrap() >= 100 << 10);
        assert_eq!(left(root), ["a", "c", "d"]);
        assert!(collect(root, u64::MAX).unwrap() >= 200 << 10);
        assert_eq!(left(root), ["d"]);
        drop(passed);
        collect(root, 1).unwrap();
        assert!(left(root).is_empty());
    }

    #[test]
    fn a_folder_is_one_image() {
        let pool = tempfile::tempdir().unwrap();
        let root = pool.path();
        image(root, "old/layer1", 50);
        image(root, "old/deep/layer2", 60);
        image(root, "young/layer", 1);
        let touch = |name: &str, age: u64| {
            let then = SystemTime::now() - Duration::from_secs(age * 3600);
            let times = fs::FileTimes::new().set_modified(then).set_accessed(then);
            File::open(root.join("@images").join(name)).unwrap().set_times(times).unwrap();
        };
        for folder in ["old/deep", "old"] {
            touch(folder, 50);
        }
        let used = File::open(root.join("@images/old/deep/layer2")).unwrap();
        rustix::fs::flock(&used, FlockOperation::LockShared).unwrap();
        assert!(collect(root, 1).unwrap() > 0);
        assert_eq!(left(root), ["old"], "the old one is in use, and whole");
        assert!(root.join("@images/old/layer1").exists());
        drop(used);
        collect(root, 1).unwrap();
        assert!(left(root).is_empty());
    }
}
