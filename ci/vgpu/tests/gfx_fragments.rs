//! Which lane and register has which element of a matrix product, and what the matrix unit does with
//! numbers: each form against a table in words of its own.

mod common;

use common::gfx::{assemble, kernel};
use common::*;
use halfstep_vgpu::number::{BF16, F16, F32, Format, Rounding};

/// A form, and where its elements are.
struct Form {
    name: &'static str,
    format: Format,
    rows: usize,
    depth: usize,
    /// Elements of a factor in a lane, registers of a lane's results.
    elements: usize,
    results: usize,
    /// Row (or column) and depth of an element of a lane.
    factor: fn(lane: usize, e: usize) -> (usize, usize),
    /// Row and column of a result.
    result: fn(lane: usize, register: usize) -> (usize, usize),
}

/// 32 rows: the lower half of the lanes has depths 0 to 3, the upper one 4 to 7.
fn factor32(lane: usize, e: usize) -> (usize, usize) {
    (lane % 32, if lane < 32 { e } else { 4 + e })
}
/// 16 rows: each quarter of the lanes has four depths.
fn factor16(lane: usize, e: usize) -> (usize, usize) {
    (lane % 16, 4 * (lane / 16) + e)
}
/// Four registers are four rows; the upper half of the lanes has the next four; then again.
fn result32(lane: usize, register: usize) -> (usize, usize) {
    let first = [0, 8, 16, 24][register / 4] + if lane < 32 { 0 } else { 4 };
    (first + register % 4, lane % 32)
}
/// Each quarter of the lanes has four rows, one a register.
fn result16(lane: usize, register: usize) -> (usize, usize) {
    (4 * (lane / 16) + register, lane % 16)
}

const FORMS: [Form; 6] = [
    Form {
        name: "v_mfma_f32_32x32x8bf16_1k",
        format: BF16,
        rows: 32,
        depth: 8,
        elements: 4,
        results: 16,
        factor: factor32,
        result: result32,
    },
    Form {
        name: "v_mfma_f32_16x16x16bf16_1k",
        format: BF16,
        rows: 16,
        depth: 16,
        elements: 4,
        results: 4,
        factor: factor16,
        result: result16,
    },
    Form {
        name: "v_mfma_f32_32x32x8f16",
        format: F16,
        rows: 32,
        depth: 8,
        elements: 4,
        results: 16,
        factor: factor32,
        result: result32,
    },
    Form {
        name: "v_mfma_f32_16x16x16f16",
        format: F16,
        rows: 16,
        depth: 16,
        elements: 4,
        results: 4,
        factor: factor16,
        result: result16,
    },
    Form {
        name: "v_mfma_f32_32x32x2f32",
        format: F32,
        rows: 32,
        depth: 2,
        elements: 1,
        results: 16,
        factor: |lane, _| (lane % 32, lane / 32),
        result: result32,
    },
    Form {
        name: "v_mfma_f32_16x16x4f32",
        format: F32,
        rows: 16,
        depth: 4,
        elements: 1,
        results: 4,
        factor: |lane, _| (lane % 16, lane / 16),
        result: result16,
    },
];

impl Form {
    fn words(&self) -> usize {
        if self.format == F32 { self.elements } else { self.elements / 2 }
    }

    /// Registers go from memory as they are: A's words, B's, C's, 64 lanes side by side in each.
    fn device(&self) -> Option<Device> {
        self.device_with("")
    }

    fn device_with(&self, modifiers: &str) -> Option<Device> {
        let (words, results) = (self.words(), self.results);
        let mut body = String::from(
            "s_load_dwordx4 s[4:7], s[0:1], 0x0\nv_lshlrev_b32_e32 v1, 2, v0\ns_waitcnt lgkmcnt(0)\n",
        );
        let mut load = |register: String, n: usize| {
            body += &format!("v_add_u32_e32 v2, {}, v1\n", 256 * n);
            body += &format!("global_load_dword {register}, v2, s[4:5]\n");
        };
        (0..words).for_each(|n| load(format!("v{}", 4 + n), n));
        (0..words).for_each(|n| load(format!("v{}", 8 + n), words + n));
        (0..results).for_each(|n| load(format!("a{n}"), 2 * words + n));
        let range = |letter: &str, first: usize, n: usize| match n {
            1 => format!("{letter}{first}"),
            _ => format!("{letter}[{first}:{}]", first + n - 1),
        };
        let (a, b, d) = (range("v", 4, words), range("v", 8, words), range("a", 0, results));
        body +=
            &format!("s_waitcnt vmcnt(0)\n{} {d}, {a}, {b}, {d}{modifiers}\ns_nop 15\n", self.name);
        for n in 0..results {
            body += &format!("v_add_u32_e32 v2, {}, v1\n", 256 * n);
            body += &format!("global_store_dword v2, a{n}, s[6:7]\n");
        }
        Some(Device::gfx(&assemble(&kernel(&body, 0))?))
    }

    fn bits(&self, x: f64) -> u32 {
        self.format.from_f64(x, Rounding::Nearest) as u32
    }

    /// A factor's registers, from its elements by row and depth.
    fn pack(&self, matrix: &dyn Fn(usize, usize) -> u32) -> Vec<u32> {
        let mut words = vec![0_u32; 64 * self.words()];
        for lane in 0..64 {
            for e in 0..self.elements {
                let (row, k) = (self.factor)(lane, e);
                let bits = matrix(row, k);
                match self.format == F32 {
                    true => words[64 * e + lane] = bits,
                    false => words[64 * (e / 2) + lane] |= bits << (16 * (e % 2)),
                }
            }
        }
        words
    }

    /// Runs it; results by row and column.
    fn run(
        &self,
        device: &mut Device,
        a: &[u32],
        b: &[u32],
        c: &dyn Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let mut words: Vec<u32> = a.iter().chain(b).copied().collect();
        for register in 0..self.results {
            words.extend((0..64).map(|lane| {
                let (row, column) = (self.result)(lane, register);
                c(row, column).to_bits()
            }));
        }
        let from = device.upload(&words, "factors");
        let to = device.memory.allocate(256 * self.results as u64, "results");
        clean(&device.run("k", 1, 64, Params::default().ptr(from).ptr(to)));
        let found = device.download(to, 64 * self.results, f32::from_le_bytes);
        let mut d = vec![f32::NAN; self.rows * self.rows];
        for register in 0..self.results {
            for lane in 0..64 {
                let (row, column) = (self.result)(lane, register);
                d[row * self.rows + column] = found[64 * register + lane];
            }
        }
        d
    }
}

#[test]
fn every_element_of_every_form_is_where_the_tables_say() {
    for form in &FORMS {
        let Some(mut device) = form.device() else { return };
        let (rows, depth) = (form.rows, form.depth);
        // A has a single 1; B's elements are all different: the row of the 1 shows which it met.
        let b = form.pack(&|column, k| form.bits((1 + k * rows + column) as f64));
        for (row, k) in (0..rows).flat_map(|row| (0..depth).map(move |k| (row, k))) {
            let a = form.pack(&|r, x| form.bits(f64::from(u8::from((r, x) == (row, k)))));
            let d = form.run(&mut device, &a, &b, &|_, _| 0.0);
            for (at, found) in d.into_iter().enumerate() {
                let wanted = if at / rows == row { 1 + k * rows + at % rows } else { 0 };
                assert_eq!(found, wanted as f32, "{} A[{row},{k}] D[{at}]", form.name);
            }
        }
        // And the other way round, with an accumulator that differs everywhere.
        let a = form.pack(&|row, k| form.bits((1 + k * rows + row) as f64));
        let b = form.pack(&|column, k| form.bits(if k == column % depth { 1.0 } else { 0.0 }));
        let d = form.run(&mut device, &a, &b, &|row, column| (1000 * row + column) as f32);
        for (at, found) in d.into_iter().enumerate() {
            let (row, column) = (at / rows, at % rows);
            let wanted = 1 + (column % depth) * rows + row + 1000 * row + column;
            assert_eq!(found, wanted as f32, "{} D[{row},{column}]", form.name);
        }
    }
}

/// MI200's matrix unit: 16-bit subnormals are 0, f32 ones are kept; infinities and NaN go through.
#[test]
fn subnormals_infinities_and_nan() {
    for form in &FORMS {
        let Some(mut device) = form.device() else { return };
        let narrow = form.format != F32;
        let one = form.bits(1.0);
        let smallest_normal = if form.format == F16 {
            0x0400
        } else if narrow {
            0x0080
        } else {
            0x0080_0000
        };
        let mut first = |x: u32, c: f32| {
            let a = form.pack(&|row, k| if (row, k) == (0, 0) { x } else { 0 });
            let b = form.pack(&|column, k| if (column, k) == (0, 0) { one } else { 0 });
            form.run(&mut device, &a, &b, &|row, column| if row + column == 0 { c } else { 0.0 })[0]
        };
        let value = |bits: u32| form.format.to_f64(bits.into()) as f32;
        assert_eq!(first(smallest_normal, 0.0), value(smallest_normal), "{}", form.name);
        let subnormal = smallest_normal - 1;
        let wanted = if narrow { 0.0 } else { value(subnormal) };
        assert_eq!(first(subnormal, 0.0), wanted, "{}", form.name);
        let tiny = f32::from_bits(5);
        assert_eq!(first(0, tiny), if narrow { 0.0 } else { tiny }, "{}", form.name);
        assert_eq!(first(form.bits(f64::INFINITY), 1.0), f32::INFINITY, "{}", form.name);
        assert!(first(form.bits(f64::NAN), 1.0).is_nan(), "{}", form.name);
        assert_eq!(first(one, -1.0), 0.0, "{}", form.name);
    }
}

/// What MMA-Sim found MI200's unit to do with 16-bit factors (arXiv 2511.10909): products in pairs, pairs, then the
/// accumulator, each step rounded to nearest even and flushed.
#[test]
fn products_of_16_bits_are_added_in_pairs_and_flushed_at_each_step() {
    for form in FORMS.iter().filter(|form| form.format != F32) {
        let Some(mut device) = form.device() else { return };
        // The first row's products with 1, or with `by`, and the accumulator.
        let mut first = |a: [f64; 4], by: f64, c: f32| {
            let a = form.pack(&|row, k| if row == 0 && k < 4 { form.bits(a[k]) } else { 0 });
            let b = form.pack(&|column, k| if column == 0 && k < 4 { form.bits(by) } else { 0 });
            form.run(&mut device, &a, &b, &|row, column| if row + column == 0 { c } else { 0.0 })[0]
        };
        let e = |n: i32| 2f64.powi(n);
        let large = 2f32.powi(24);
        assert_eq!(first([1.0; 4], 1.0, large), large + 4.0, "{}", form.name);
        // 2^-12 is half of the last place of 2^12: two count where they are a pair, and are lost one by one.
        let small = e(-12);
        assert_eq!(first([e(12), 0.0, small, small], 1.0, 0.0), 4096.0 + 2f32.powi(-11));
        assert_eq!(first([e(12), small, small, 0.0], 1.0, 0.0), 4096.0, "{}", form.name);
        if form.format == BF16 {
            let least = f32::MIN_POSITIVE;
            // Subnormal products, and sums of pairs, are 0.
            assert_eq!(first([e(-63), e(-63), 0.0, 0.0], e(-64), 0.0), 0.0, "{}", form.name);
            assert_eq!(first([1.5 * e(-126), -e(-126), 0.0, 0.0], 1.0, least), least);
        }
        assert_eq!(
            first([0.0; 4], -1.0, -0.0).to_bits(),
            0,
            "{}: the accumulator is +0",
            form.name
        );
    }
}

/// Four products of 16×16 of one instruction, whose A may be one's: D's register r has rows 4·(lane / 16) + r % 4 of
/// block r / 4. As AMD's matrix instruction calculator prints them.
#[test]
fn blocks_may_share_their_rows_of_a() {
    let form = Form {
        name: "v_mfma_f32_16x16x1f32",
        format: F32,
        rows: 16,
        depth: 1,
        elements: 1,
        results: 16,
        factor: |lane, _| (lane % 16, 0),
        result: result16,
    };
    for (modifiers, a_of) in [
        ("", [0, 1, 2, 3]),
        (" cbsz:1", [0, 0, 2, 2]),
        (" cbsz:1 abid:1", [1, 1, 3, 3]),
        (" cbsz:2", [0; 4]),
        (" cbsz:2 abid:1", [1; 4]),
        (" cbsz:2 abid:2", [2; 4]),
        (" cbsz:2 abid:3", [3; 4]),
    ] {
        let Some(mut device) = form.device_with(modifiers) else { return };
        let mut run =
            |a: &dyn Fn(usize) -> f32, b: &dyn Fn(usize) -> f32, c: &dyn Fn(usize) -> f32| {
                let mut words: Vec<u32> = (0..64).map(|lane| a(lane).to_bits()).collect();
                words.extend((0..64).map(|lane| b(lane).to_bits()));
                words.extend((0..1024).map(|i| c(i).to_bits()));
                let from = device.upload(&words, "factors");
                let to = device.memory.allocate(4096, "results");
                clean(&device.run("k", 1, 64, Params::default().ptr(from).ptr(to)));
                device.download(to, 1024, f32::from_le_bytes)
            };
        let d = run(&|lane| (1 + lane) as f32, &|lane| (101 + 3 * lane) as f32, &|i| i as f32);
        for (i, found) in d.into_iter().enumerate() {
            let (register, lane) = (i / 64, i % 64);
            let (block, row) = (register / 4, 4 * (lane / 16) + register % 4);
            let (a, b) = (1 + 16 * a_of[block] + row, 101 + 3 * (16 * block + lane % 16));
            assert_eq!(found, (a * b + i) as f32, "{modifiers}: register {register}, lane {lane}");
        }
        // One rounding: (1 + 2^-12)² - 1 is 2^-11 + 2^-24, whose last bit the square alone would lose. Subnormals stay.
        let x = 1.0 + 2f32.powi(-12);
        assert!(
            run(&|_| x, &|_| x, &|_| -1.0).iter().all(|d| *d == 2f32.powi(-11) + 2f32.powi(-24))
        );
        let (small, least) = (2f32.powi(-75), f32::from_bits(1));
        assert!(run(&|_| small, &|_| 2.0 * small, &|_| -0.0).iter().all(|d| *d == least));
    }
}
