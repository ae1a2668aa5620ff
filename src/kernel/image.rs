//! Device images embedded by the build: compiled kernels, one image for each architecture.

use super::table;

/// The kernels of the table, compiled for one architecture.
///
/// ```
/// for image in halfstep::images() {
///     println!("{} {} {}: {} bytes", image.target, image.arch, image.format, image.bytes.len());
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Image {
    /// `cuda` or `hip`.
    pub target: &'static str,
    /// `sm_80`, `compute_80`, `gfx90a`.
    pub arch: &'static str,
    /// `cubin`, `ptx`, or `co` (a code object).
    pub format: &'static str,
    /// The image.
    pub bytes: &'static [u8],
    /// 64-bit FNV-1a of the bytes as the build wrote them; checked before an image is loaded.
    pub checksum: u64,
}

#[cfg(any(feature = "cuda", feature = "hip"))]
mod built {
    use super::Image;
    include!(concat!(env!("OUT_DIR"), "/images.rs"));
}

/// What every image says of the parameter blocks and the rows that it was compiled with, and this
/// crate expects: a hash of both.
#[cfg(any(feature = "cuda", feature = "hip"))]
pub(crate) const ABI: u64 = built::ABI;

/// 64-bit FNV-1a (Fowler, Noll, Vo): finds damage, not malice.
#[cfg(any(feature = "cuda", feature = "hip"))]
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The images in this build: none without the features `cuda` and `hip`, or where
/// `HALFSTEP_SKIP_KERNELS` was set.
pub fn images() -> &'static [Image] {
    #[cfg(any(feature = "cuda", feature = "hip"))]
    return built::IMAGES;
    #[cfg(not(any(feature = "cuda", feature = "hip")))]
    &[]
}

/// The entry points that each image of a target (`cuda` or `hip`) has.
pub fn device_symbols(target: &str) -> impl Iterator<Item = &'static str> {
    table::on(target).map(|(entry, _)| entry.symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_differ_and_fit_the_budget() {
        let mut symbols: Vec<_> = table::entries().map(|entry| entry.symbol).collect();
        for target in [table::CUDA, table::HIP] {
            let count = device_symbols(target).count();
            println!("{} rows, {count} with device code on {target}", symbols.len());
            assert!(count > 0 && count <= 64, "{count} rows on {target}; the budget is 64");
        }
        assert!(symbols.iter().all(|symbol| symbol.starts_with("hs_")));
        symbols.sort_unstable();
        assert!(symbols.windows(2).all(|pair| pair[0] != pair[1]), "{symbols:?}");
    }

    #[test]
    fn every_row_with_device_code_is_in_every_image() {
        if images().is_empty() {
            println!("skipped: no device images in this build");
        }
        for image in images() {
            #[cfg(any(feature = "cuda", feature = "hip"))]
            assert_eq!(checksum(image.bytes), image.checksum, "{} {}", image.arch, image.format);
            for symbol in device_symbols(image.target) {
                let found = image.bytes.windows(symbol.len()).any(|w| w == symbol.as_bytes());
                assert!(found, "{} {}: no {symbol}", image.arch, image.format);
            }
        }
    }
}
