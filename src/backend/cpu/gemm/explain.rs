//! What a product does here, in words, by the functions that decide it when it runs.

#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512, avx512bf16, few, few_columns};
use super::{form::Form, path::Path, portable};
use crate::kernel::params::gemm::{self as params, Product};
use crate::{DeviceInfo, Dtype};

/// How a form computes a product.
struct Way {
    /// Rows and columns of a tile in registers.
    tile: (usize, usize),
    /// The operand that is read once, as it lies, where the other has few rows or columns: these need no tiles.
    as_it_lies: Option<&'static str>,
}

impl Way {
    fn of<F: Form>(block: &Product) -> Self {
        #[cfg(target_arch = "x86_64")]
        let as_it_lies = match (F::VECTOR, few::fits(block), few_columns::fits(block)) {
            (true, true, _) => Some("few rows: B"),
            (true, _, true) => Some("few columns: A"),
            _ => None,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let (as_it_lies, _) = (None, block);
        Self { tile: (F::MR, F::NR), as_it_lies }
    }
}

/// How a product with a sum is computed, by which form, why by that, and what its bits are; as far as sizes say.
pub(crate) fn explain(block: &Product, info: &DeviceInfo) -> String {
    let input = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == block.input);
    let input = input.unwrap_or(Dtype::F32);
    let path = Path::ALL.into_iter().find(|path| path.name() == info.arch);
    let path = path.unwrap_or(Path::Reference);
    let way = with_form!(path, input, |F| Some(Way::of::<F>(block)), None);
    let (how, form) = match way {
        None => ("one element at a time".to_string(), path),
        // Its loops are those around tiles, which are of no type alone.
        Some(Way { as_it_lies: Some(operand), .. }) => {
            (format!("{operand} is read once, as it lies, without tiles"), path.of(Dtype::F32))
        }
        Some(Way { tile: (rows, columns), .. }) => {
            (format!("tiles of {rows}×{columns} sums in registers"), path.of(input))
        }
    };
    let mut text = format!("{how}, by {}", form.name());
    if form != path {
        text += &format!(" (what {} does not do)", path.name());
    }
    text += match (form, path == Path::detect()) {
        (_, true) => ": the fastest form here that gives the reference's bits",
        (Path::Amx, false) => {
            ", as the device was opened; in an order of its own, within the error bound"
        }
        (_, false) => ", as the device was opened; the reference's bits",
    };
    if block.flags & params::FLAG_THROUGH_BF16 != 0 {
        text += "; factors are rounded to bf16";
    }
    if block.tile != 0 || block.splits > 1 {
        text += "; what is pinned is for GPUs";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    fn explained(form: &str, input: Dtype, m: u64) -> Option<String> {
        of_size(form, input, (m, 64))
    }

    fn of_size(form: &str, input: Dtype, (m, n): (u64, u64)) -> Option<String> {
        let device = Device::cpu_with_arch(std::num::NonZeroUsize::MIN, form).ok()?;
        let zeroed: Product = bytemuck::Zeroable::zeroed();
        let block = Product { m, n, k: 64, batch: 1, input: input as u32, ..zeroed };
        Some(explain(&block, device.info()))
    }

    /// The tile of each form, on the machines that have it; types that it has no tiles for; few rows.
    #[test]
    fn forms_say_what_they_do() {
        let tiles =
            |size: &str, form: &str| format!("tiles of {size} sums in registers, by {form}");
        let (bits, few) = ("the reference's bits", "few rows: B is read once, as it lies, without");
        let wide = tiles("8×48", "avx512f");
        let cases = [
            ("portable", Dtype::F16, 1, tiles("4×16", "portable"), bits),
            ("reference", Dtype::F32, 2, "one element at a time, by reference".into(), bits),
            ("avx2+fma", Dtype::F32, 9, tiles("6×16", "avx2+fma"), bits),
            ("avx2+fma", Dtype::Bf16, 8, few.into(), bits),
            ("avx512f", Dtype::Bf16, 9, wide.clone(), bits),
            ("avx512f", Dtype::Bf16, 8, few.into(), bits),
            ("avx512bf16", Dtype::Bf16, 9, tiles("8×48", "avx512bf16"), bits),
            ("avx512bf16", Dtype::F16, 9, format!("{wide} (what avx512bf16 does not do)"), bits),
            ("amx-bf16", Dtype::Bf16, 9, tiles("32×32", "amx-bf16"), "within the error bound"),
            ("amx-bf16", Dtype::F32, 9, format!("{wide} (what amx-bf16 does not do)"), bits),
            ("amx-bf16", Dtype::Bf16, 1, few.into(), bits),
        ];
        for (form, input, m, starts, ends) in cases {
            let Some(text) = explained(form, input, m) else { continue };
            assert!(text.starts_with(&starts) && text.ends_with(ends), "{form}: {text}");
            let default = Device::cpu().info().arch == form;
            assert!(text.contains("fastest form here") == default, "{form}: {text}");
        }
    }

    #[test]
    fn few_columns_are_said_to_be() {
        for (form, n, few) in
            [("avx2+fma", 8, true), ("avx2+fma", 9, false), ("portable", 1, false)]
        {
            let Some(text) = of_size(form, Dtype::Bf16, (64, n)) else { continue };
            let expected = "few columns: A is read once, as it lies, without tiles";
            assert_eq!(text.starts_with(expected), few, "{text}");
        }
    }
}
