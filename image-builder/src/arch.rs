//! Everything that differs between processor architectures, in one place.

use std::fmt;
use std::str::FromStr;

/// An architecture that an image can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86 with UEFI or BIOS.
    X86_64,
    /// 64-bit ARM with UEFI.
    Aarch64,
}

impl Arch {
    /// Each architecture, in the order of lists.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The machine that this program runs on, when it is one of ours.
    #[must_use]
    pub fn host() -> Option<Self> {
        std::env::consts::ARCH.parse().ok()
    }

    /// As Rust, UEFI tools and our folders write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian writes it.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// `ARCH=` of the kernel's make.
    #[must_use]
    pub fn kernel(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "arm64",
        }
    }

    /// What make builds, and where it lies in the object folder.
    #[must_use]
    pub fn kernel_image(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("bzImage", "arch/x86/boot/bzImage"),
            Self::Aarch64 => ("Image.gz", "arch/arm64/boot/Image.gz"),
        }
    }

    /// Prefix of a cross compiler, empty on a machine of the same kind.
    #[must_use]
    pub fn cross(self) -> &'static str {
        match (self, Self::host() == Some(self)) {
            (_, true) => "",
            (Self::X86_64, false) => "x86_64-linux-gnu-",
            (Self::Aarch64, false) => "aarch64-linux-gnu-",
        }
    }

    /// Target triple of our static programs.
    #[must_use]
    pub fn rust_target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// C compiler for the few C parts of our programs, with its Debian package.
    #[must_use]
    pub fn musl_gcc(self) -> crate::tool::Need {
        match self {
            Self::X86_64 => crate::tool::Need { name: "musl-gcc", package: "musl-tools" },
            Self::Aarch64 => crate::tool::Need {
                name: "aarch64-linux-gnu-gcc",
                package: "gcc-aarch64-linux-gnu",
            },
        }
    }

    /// Debian's folder for libraries, below `usr/lib`.
    #[must_use]
    pub fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// The stub in front of a unified kernel image, in `systemd-boot-efi`.
    #[must_use]
    pub fn efi_stub(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
            Self::Aarch64 => "usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
        }
    }

    /// The name under which firmware looks for a loader on a removable disk (UEFI 2.10, 3.5.1.1).
    #[must_use]
    pub fn efi_boot_name(self) -> &'static str {
        match self {
            Self::X86_64 => "BOOTX64.EFI",
            Self::Aarch64 => "BOOTAA64.EFI",
        }
    }

    /// Network boot programs: path in Debian's `ipxe` package, name that we ship, purpose.
    #[must_use]
    pub fn ipxe(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::X86_64 => &[
                ("usr/lib/ipxe/undionly.kpxe", "undionly.kpxe"),
                ("usr/lib/ipxe/ipxe-amd64.efi", "ipxe.efi"),
                ("usr/lib/ipxe/snponly.efi", "snponly.efi"),
            ],
            Self::Aarch64 => &[("usr/lib/ipxe/ipxe-arm64.efi", "ipxe.efi")],
        }
    }

    /// CPU microcode: path in the early archive, and the folder of blobs that make it up. ARM has none.
    #[must_use]
    pub fn microcode(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::X86_64 => &[
                (
                    "kernel/x86/microcode/AuthenticAMD.bin",
                    "amd64-microcode",
                    "usr/lib/firmware/amd-ucode",
                ),
                (
                    "kernel/x86/microcode/GenuineIntel.bin",
                    "intel-microcode",
                    "usr/lib/firmware/intel-ucode",
                ),
            ],
            Self::Aarch64 => &[],
        }
    }

    /// The serial port that a machine of this kind usually has.
    #[must_use]
    pub fn serial(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Aarch64 => "ttyAMA0",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|a| [a.name(), a.debian(), a.kernel()].contains(&text))
            .ok_or_else(|| format!("`{text}` is no architecture of ours: x86_64, aarch64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        for (text, arch) in
            [("x86_64", Arch::X86_64), ("amd64", Arch::X86_64), ("arm64", Arch::Aarch64)]
        {
            assert_eq!(text.parse(), Ok(arch));
        }
        assert!("riscv64".parse::<Arch>().is_err());
    }
}
