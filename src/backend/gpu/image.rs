//! From the images in the build to functions that can be launched, every check on the way.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use super::driver::{Driver, Failure, Handle};
use crate::kernel::image::{ABI, Image, checksum, images};
use crate::kernel::table;

/// A kernel of a loaded image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub(super) handle: Handle,
    /// Threads of a block.
    pub(super) threads: u32,
    /// Bytes of shared memory that a launch asks for.
    pub(super) shared: u32,
    /// Blocks that one unit runs at a time.
    pub(super) blocks_per_unit: u32,
}

/// The loaded image: every kernel of the table that has device code.
#[derive(Debug)]
pub(super) struct Kernels {
    module: Handle,
    /// What it was loaded from. ROCm does not copy that, and has it read as long as the module is there.
    _image: Vec<u8>,
    functions: HashMap<&'static str, Function>,
}

/// Why there are none.
#[derive(Debug)]
pub(super) enum Unloadable {
    /// The build has nothing that this device can run; the text says what it has.
    NoImage(String),
    /// An image is not what the build made, or not made for this crate.
    Damaged(String),
    /// The driver failed.
    Driver(Failure),
}

impl From<Failure> for Unloadable {
    fn from(failure: Failure) -> Self {
        Self::Driver(failure)
    }
}

impl Kernels {
    /// Loads the best image for an architecture (`sm_86`, `gfx90a`).
    pub(super) fn load(driver: &Driver, arch: &str) -> Result<Self, Unloadable> {
        let target = driver.vendor.name;
        let ours: Vec<&Image> = images().iter().filter(|image| image.target == target).collect();
        Self::load_from(&ours, driver, arch)
    }

    pub(super) fn load_from(
        ours: &[&Image],
        driver: &Driver,
        arch: &str,
    ) -> Result<Self, Unloadable> {
        let mut refused = Vec::new();
        for image in candidates(ours, arch) {
            if checksum(image.bytes) != image.checksum {
                let what = format!("the image for {} is not what the build made", image.arch);
                return Err(Unloadable::Damaged(what));
            }
            // PTX is text, and the driver looks for its end.
            let mut bytes = image.bytes.to_vec();
            bytes.push(0);
            let mut module = std::ptr::null_mut();
            // SAFETY: a whole image, which stays as long as the module; one handle is written.
            match unsafe { driver.module_load(&mut module, bytes.as_ptr().cast::<c_void>()) } {
                Ok(()) => return Self::resolve(driver, module, bytes, image),
                Err(failure) if driver.vendor.bad_image.contains(&failure.code) => {
                    let code = driver.describe(failure.code);
                    refused.push(format!("{} ({}): {code}", image.arch, image.format));
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        let variable = format!("HALFSTEP_{}_ARCHS", driver.vendor.name.to_uppercase());
        if !refused.is_empty() {
            return Err(Unloadable::NoImage(format!(
                "the driver (version {}) loads no kernels for {arch}: {}; build with a toolkit that is not newer than the \
                 driver, and for this architecture ({variable}), or update the driver",
                driver.version()?,
                refused.join(", ")
            )));
        }
        let built = match ours.is_empty() {
            true => "this build has none (was HALFSTEP_SKIP_KERNELS set?)".to_string(),
            false => {
                let list: Vec<_> =
                    ours.iter().map(|i| format!("{} ({})", i.arch, i.format)).collect();
                format!("this build has {}", list.join(", "))
            }
        };
        Err(Unloadable::NoImage(format!("no kernels for {arch}: {built}; {variable} chooses")))
    }

    fn resolve(
        driver: &Driver,
        module: Handle,
        bytes: Vec<u8>,
        image: &Image,
    ) -> Result<Self, Unloadable> {
        let mut kernels = Self { module, _image: bytes, functions: HashMap::new() };
        match kernels.fill(driver, image) {
            Ok(()) => Ok(kernels),
            Err(error) => {
                kernels.unload(driver);
                Err(error)
            }
        }
    }

    fn fill(&mut self, driver: &Driver, image: &Image) -> Result<(), Unloadable> {
        let (mut address, mut bytes) = (0, 0);
        // SAFETY: a C string; an address and a length are written.
        unsafe { driver.module_global(&mut address, &mut bytes, self.module, c"hs_abi".as_ptr()) }?;
        let mut abi = [0u8; size_of::<u64>()];
        if bytes == abi.len() {
            // SAFETY: the variable has that many bytes; the default stream, waited for.
            unsafe {
                driver.download(abi.as_mut_ptr().cast(), address, bytes, std::ptr::null_mut())?;
                driver.stream_sync(std::ptr::null_mut())?;
            }
        }
        if u64::from_le_bytes(abi) != ABI {
            let what = format!(
                "the image for {} has other parameter blocks than this crate (ABI {:#x}, not {ABI:#x})",
                image.arch,
                u64::from_le_bytes(abi)
            );
            return Err(Unloadable::Damaged(what));
        }
        for (entry, source) in table::on(image.target) {
            let threads = source.team.threads(driver.vendor.wave);
            let name = CString::new(entry.symbol).expect("symbols have no zero inside");
            let (mut handle, mut blocks, mut shared) = (std::ptr::null_mut(), 0, 0);
            // SAFETY: a C string; one handle is written.
            unsafe { driver.module_function(&mut handle, self.module, name.as_ptr()) }?;
            if let Some((call, property)) = driver.vendor.asked_shared.filter(|_| source.asked > 0)
            {
                shared = source.asked;
                driver.set_property(call, handle, property, shared as i32)?;
            }
            // SAFETY: a function of a loaded module; one i32 is written.
            unsafe { driver.occupancy(&mut blocks, handle, threads as i32, shared as usize) }?;
            let blocks_per_unit = u32::try_from(blocks).unwrap_or(1).max(1);
            let function = Function { handle, threads, shared, blocks_per_unit };
            self.functions.insert(entry.symbol, function);
        }
        Ok(())
    }

    /// The kernel of a row; none where the row has no device code.
    pub(super) fn get(&self, symbol: &str) -> Option<Function> {
        self.functions.get(symbol).copied()
    }

    pub(super) fn unload(&mut self, driver: &Driver) {
        // SAFETY: loaded by us, unloaded once; no work of it is left.
        let _ = unsafe { driver.module_unload(self.module) };
    }
}

/// Images that may run on an architecture, best first: code for the architecture itself, then code
/// that the driver compiles.
fn candidates<'a>(images: &[&'a Image], arch: &str) -> Vec<&'a Image> {
    let number = |text: &str| text.rsplit('_').next().and_then(|n| n.parse::<u32>().ok());
    let mut fit: Vec<(bool, u32, &Image)> = Vec::new();
    for image in images {
        let (have, want) = (number(image.arch), number(arch));
        match (image.format, have, want) {
            // A cubin runs on its own major version, from its minor version on.
            ("cubin", Some(have), Some(want)) if have / 10 == want / 10 && have <= want => {
                fit.push((true, have, image));
            }
            ("ptx", Some(have), Some(want)) if have <= want => fit.push((false, have, image)),
            ("co", ..) if image.arch == arch => fit.push((true, 0, image)),
            _ => {}
        }
    }
    fit.sort_by_key(|(native, number, _)| std::cmp::Reverse((*native, *number)));
    fit.into_iter().map(|(_, _, image)| image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(arch: &'static str, format: &'static str) -> Image {
        Image { target: "any", arch, format, bytes: b"", checksum: 0 }
    }

    #[test]
    fn the_best_image_comes_first_and_none_that_cannot_run() {
        let all = [
            image("sm_80", "cubin"),
            image("sm_90", "cubin"),
            image("compute_80", "ptx"),
            image("compute_90", "ptx"),
            image("gfx90a", "co"),
        ];
        let all: Vec<&Image> = all.iter().collect();
        let names = |arch| -> Vec<&str> { candidates(&all, arch).iter().map(|i| i.arch).collect() };
        assert_eq!(names("sm_80"), ["sm_80", "compute_80"]);
        assert_eq!(names("sm_86"), ["sm_80", "compute_80"]);
        assert_eq!(names("sm_90"), ["sm_90", "compute_90", "compute_80"]);
        assert_eq!(names("sm_120"), ["compute_90", "compute_80"]);
        assert_eq!(names("gfx90a"), ["gfx90a"]);
        assert!(names("sm_75").is_empty() && names("gfx1030").is_empty());
    }
}
