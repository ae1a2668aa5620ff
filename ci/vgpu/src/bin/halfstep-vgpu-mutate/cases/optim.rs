//! The kernels of `optim`.

use super::{BF16_TYPE, Builder, Case, F16_TYPE, F32_TYPE, Plain, TYPES};
use crate::params::Partial;
use crate::params::optim::*;

/// Tensors: tails of each length, one that has no gradient, one that is inactive, one longer
/// than a piece of 4,096. Gradients and parameters of odd rows are misaligned, states from
/// [`CROOKED`] on.
const LENGTHS: [usize; 13] = [4109, 23, 15, 2054, 2055, 8, 14, 7, 1, 301, 2050, 3, 12];
const WITHOUT: usize = 2;
const INACTIVE: usize = 6;
const CROOKED: usize = 4;
const STILL: usize = 3;

/// What most kernels read.
struct Tables {
    chunks: u64,
    tensors: u64,
    chunk_count: u64,
    state_len: usize,
}

/// Chunks of at most 2,048 elements, but for the first of 4,104.
fn tables(b: &mut Builder) -> Tables {
    let (mut chunks, mut tensors, mut state) = (Vec::new(), Vec::new(), 0);
    for (row, len) in LENGTHS.into_iter().enumerate() {
        let first_chunk = chunks.len() as u32;
        let mut start = 0;
        while start < len {
            let piece = (len - start).min(if row == 0 { 4104 } else { 2048 });
            chunks.push(Chunk { start: start as u64, tensor: row as u32, len: piece as u32 });
            start += piece;
        }
        tensors.push(Tensor {
            state,
            len: len as u64,
            lr_factor: 1.0 + row as f64 / 8.0,
            decay_factor: 1.0 - row as f64 / 16.0,
            first_chunk,
            chunks: chunks.len() as u32 - first_chunk,
            group: row as u32 % 2,
            id: 10 + row as u32,
        });
        state += len as u64;
        state = if row + 1 < CROOKED { state.next_multiple_of(8) } else { state | 1 };
    }
    let chunk_count = chunks.len() as u64;
    let (chunks, tensors) = (b.table(&chunks), b.table(&tensors));
    Tables { chunks, tensors, chunk_count, state_len: state as usize }
}

/// An array for each tensor, and the table of their addresses.
fn arrays(b: &mut Builder, ty: u32, odd: bool, absent: bool) -> u64 {
    let address = |(row, len): (usize, &usize)| {
        let values = b.noise(*len, odd);
        let at = b.values(&values, ty, row % 2);
        if absent && row == WITHOUT { 0 } else { at }
    };
    let addresses: Vec<u64> = LENGTHS.iter().enumerate().map(address).collect();
    b.table(&addresses)
}

fn status() -> Status {
    Status {
        attempts: 9,
        applied: 0x1_0000_0007,
        non_finite: 2,
        norm: 3.0,
        clip: 0.5,
        scale: 1024.0,
        inverse: 1.0 / 1024.0,
        growth_tracker: 1,
        hysteresis: 2,
        skips: 3,
        used_scale: 512.0,
        factor: 0.37,
        skip: 0,
        tensor: NONE,
        exhausted: 0,
    }
}

fn scalars(row: usize) -> Scalars {
    let r = row as f32;
    Scalars {
        // A tensor that is stepped by nothing: what is rounded is what was there, middles and all.
        a: if row == STILL { 0.0 } else { 0.03 + r / 64.0 },
        w: if row == STILL { 0.0 } else { 0.02 + r / 128.0 },
        b1: 0.9,
        c1: 0.1,
        b2: 0.97,
        c2: 0.03,
        s: 1.2 + r / 16.0,
        // Without it what a tiny root has lost is seen.
        eps: if row % 3 == 1 { 0.0 } else { 0.01 },
        n: 0.8 + r / 16.0,
        flags: row as u32 % 2,
        active: u32::from(row != WITHOUT && row != INACTIVE),
        pad: 0,
    }
}

pub fn cases(kernel: &str) -> Vec<Case> {
    let name = kernel.trim_start_matches("hs_optim_");
    match name {
        "stats" => (0..4).map(stats).collect(),
        "control" => (0..34).map(control).collect(),
        "convert" => (0..WAYS.len()).map(convert).collect(),
        "step_lamb_trust" => vec![trust(0), trust(1)],
        _ => (0..STEPS).map(|i| step(name, i, false)).chain([step(name, 0, true)]).collect(),
    }
}

fn stats(i: usize) -> Case {
    let mut b = Builder::default();
    let grad = TYPES[i % 3];
    let t = tables(&mut b);
    let grads = arrays(&mut b, grad, true, true);
    let status = b.table(&[status()]);
    let block = Stats {
        chunks: t.chunks,
        tensors: t.tensors,
        grads,
        status,
        partials: b.room(16 * t.chunk_count),
        chunk_count: t.chunk_count,
        tensor_count: LENGTHS.len() as u64,
        grad,
        pad: 0,
    };
    b.launch([2, 1, 1], 256, block.bytes())
}

/// How parameters are kept, and their types.
const MODES: [(u32, u32); 10] = [
    (MASTER_F32, BF16_TYPE),
    (MASTER_OWN, F32_TYPE),
    (MASTER_REMAINDER, BF16_TYPE),
    (MASTER_STOCHASTIC, BF16_TYPE),
    (MASTER_NEAREST, F16_TYPE),
    (MASTER_F32, F16_TYPE),
    (MASTER_STOCHASTIC, F16_TYPE),
    (MASTER_NEAREST, BF16_TYPE),
    (MASTER_F32, F32_TYPE),
    (MASTER_NEAREST, F32_TYPE),
];

/// Each with every type of gradients, and moments of another type each time.
const STEPS: usize = 3 * MODES.len();

fn step(name: &str, i: usize, skipped: bool) -> Case {
    let mut b = Builder::default();
    let (mode, param) = MODES[i % MODES.len()];
    let (grad, moment) = (TYPES[i % 3], TYPES[(i + i / 3) % 3]);
    let t = tables(&mut b);
    // One NaN makes all of a norm NaN.
    let odd = name != "step_lamb_moments" || i % 4 == 3;
    let params = arrays(&mut b, param, odd, false);
    let grads = arrays(&mut b, grad, odd, true);
    let rows: Vec<Scalars> = (0..LENGTHS.len()).map(scalars).collect();
    let scalars = b.table(&rows);
    let status = b.table(&[Status { skip: u32::from(skipped), ..status() }]);
    // Second moments are not negative; some are so small that a square root has to scale them.
    let mut array = |ty: u32, positive: bool| {
        let mut values = b.noise(t.state_len, odd && !positive);
        for (i, x) in values.iter_mut().enumerate().filter(|_| positive) {
            *x = if i % 4 == 1 {
                [1e-37, 1e-41, 3e-43][i / 4 % 3] * (i % 7) as f32
            } else {
                x.abs()
            };
        }
        b.values(&values, ty, 0)
    };
    let master_type = if mode == MASTER_REMAINDER { BF16_TYPE } else { F32_TYPE };
    let (master, slot0) = (array(master_type, false), array(moment, name.contains("adagrad")));
    let (slot1, slot2) = (array(moment, true), array(moment, true));
    let norms = b.room(16 * t.chunk_count);
    let block = Step {
        chunks: t.chunks,
        tensors: t.tensors,
        scalars,
        status,
        params,
        grads,
        master,
        slot0,
        slot1,
        slot2,
        norms,
        chunk_count: t.chunk_count,
        tensor_count: LENGTHS.len() as u64,
        state_len: t.state_len as u64,
        seed: 0x1234_5678_9abc_def1,
        row: 0,
        param,
        grad,
        moment,
        mode,
        pad: 0,
    };
    // With three alone, a step of four from piece to piece would meet every first piece of a chunk, and most have no other.
    b.launch([2 + i as u32 % 2, 1, 1], 256, block.bytes())
}

/// More tensors than threads, of 1 to 9 chunks each.
fn trust(skip: u32) -> Case {
    const ROWS: usize = 300;
    let mut b = Builder::default();
    let (mut tensors, mut chunk_count) = (Vec::new(), 0);
    for row in 0..ROWS {
        let chunks = 1 + row as u32 % 9;
        tensors.push(Tensor {
            state: 0,
            len: 1,
            lr_factor: 1.0,
            decay_factor: 1.0,
            first_chunk: chunk_count,
            chunks,
            group: 0,
            id: 0,
        });
        chunk_count += chunks;
    }
    let norm = |n: u64| match n % 97 {
        39 => f64::INFINITY,
        61 => f64::NAN,
        _ => 0.1 * (n * n % 31) as f64,
    };
    let norms: Vec<f64> = (0..2 * u64::from(chunk_count)).map(norm).collect();
    let rows: Vec<Scalars> = (0..ROWS).map(|row| scalars(row % 16)).collect();
    let block = Step {
        chunks: 0,
        tensors: b.table(&tensors),
        scalars: b.table(&rows),
        status: b.table(&[Status { skip, ..status() }]),
        params: 0,
        grads: 0,
        master: 0,
        slot0: 0,
        slot1: 0,
        slot2: 0,
        norms: b.table(&norms),
        chunk_count: chunk_count.into(),
        tensor_count: ROWS as u64,
        state_len: 0,
        seed: 0,
        row: 0,
        param: 0,
        grad: 0,
        moment: 0,
        mode: 0,
        pad: 0,
    };
    b.launch([1, 1, 1], 256, block.bytes())
}

/// Directions of conversions, ways of keeping masters, types of parameters.
const WAYS: [(u32, u32, u32); 21] = [
    (CONVERT_LOAD, MASTER_F32, BF16_TYPE),
    (CONVERT_LOAD, MASTER_F32, F16_TYPE),
    (CONVERT_LOAD, MASTER_REMAINDER, BF16_TYPE),
    (CONVERT_STORE, MASTER_F32, BF16_TYPE),
    (CONVERT_STORE, MASTER_F32, F16_TYPE),
    (CONVERT_STORE, MASTER_REMAINDER, BF16_TYPE),
    (CONVERT_STORE, MASTER_OWN, F32_TYPE),
    (CONVERT_EXPORT, MASTER_F32, BF16_TYPE),
    (CONVERT_EXPORT, MASTER_REMAINDER, BF16_TYPE),
    (CONVERT_EXPORT, MASTER_OWN, F32_TYPE),
    (CONVERT_EXPORT, MASTER_NEAREST, F16_TYPE),
    (CONVERT_ROUND, MASTER_F32, BF16_TYPE),
    (CONVERT_ROUND, MASTER_F32, F16_TYPE),
    (CONVERT_STORE, MASTER_NEAREST, F16_TYPE),
    (CONVERT_LOAD, MASTER_F32, F32_TYPE),
    (CONVERT_STORE, MASTER_F32, F32_TYPE),
    (CONVERT_ROUND, MASTER_F32, F32_TYPE),
    (CONVERT_EXPORT, MASTER_NEAREST, BF16_TYPE),
    (CONVERT_EXPORT, MASTER_STOCHASTIC, F16_TYPE),
    (CONVERT_STORE, MASTER_NEAREST, BF16_TYPE),
    (CONVERT_LOAD, MASTER_REMAINDER, BF16_TYPE),
];

/// Masters: what is loaded, stored, exported and rounded, by every way of keeping them.
fn convert(i: usize) -> Case {
    let (direction, mode, param) = WAYS[i];
    let first = u64::from(i % 4 == 1);
    let mut b = Builder::default();
    let t = tables(&mut b);
    let params = arrays(&mut b, param, true, false);
    let values = arrays(&mut b, F32_TYPE, true, false);
    let master = b.noise(t.state_len, true);
    let ty = if mode == MASTER_REMAINDER { BF16_TYPE } else { F32_TYPE };
    let block = Convert {
        chunks: t.chunks,
        tensors: t.tensors,
        params,
        values,
        master: b.values(&master, ty, 0),
        first_chunk: first,
        chunk_count: t.chunk_count - first,
        tensor_count: LENGTHS.len() as u64,
        state_len: t.state_len as u64,
        param,
        mode,
        direction,
        pad: 0,
    };
    b.launch([3, 1, 1], 256, block.bytes())
}

/// Every family, and every way that a step is decided and the scale moves.
fn control(i: usize) -> Case {
    const ROWS: usize = 260; // more than there are threads
    let mut b = Builder::default();
    let finite = i % 3 != 1;
    // The first tensor that is not finite is another thread's in every case.
    let first = |n: usize| n / 8 == 17 * (i / 3);
    let partial = |n: usize| Partial {
        sum_squares: if i == 12 { f64::INFINITY } else { 1.0 + n as f64 / 7.0 },
        non_finite: if finite || n % 5 == 3 { 0 } else { (n * n / 3 + n) as u32 % 17 },
        tensor: if first(n) { 7 } else { 900 - n as u32 % 300 },
    };
    let list = |b: &mut Builder, from: usize, count: usize| {
        let rows: Vec<Partial> = (from..from + count).map(partial).collect();
        Source { partials: b.table(&rows), count: count as u64 }
    };
    let sources = [list(&mut b, 0, 13), list(&mut b, 13, 2100), list(&mut b, 2113, 1)];
    let tensor = |row: usize| Tensor {
        state: 0,
        len: 1,
        lr_factor: 1.0 + (row % 5) as f64 / 8.0,
        decay_factor: 1.0 - (row % 3) as f64 / 16.0,
        first_chunk: 0,
        chunks: 1,
        group: row as u32 % 2,
        id: row as u32,
    };
    let group = |g: usize| Group {
        lr: 0.1 + g as f64,
        decay: 0.01 + g as f64 / 8.0,
        beta1: 0.9 - g as f64 / 16.0,
        beta2: 0.99,
        eps: 1e-3,
        extra: 0.1 * g as f64,
        flags: g as u32,
        pad: 0,
    };
    let progress = |row: usize| {
        let step = row as u64 % 4;
        Progress { step, beta1_power: 0.9_f64.powi(step as i32), beta2_power: 0.95 }
    };
    let rows = |n: usize| 0..n;
    let status = Status {
        growth_tracker: [1, 3, u32::MAX][i % 3],
        hysteresis: 1 + i as u32 % 2,
        skips: if i == 9 { u32::MAX } else { 2 },
        scale: if i == 4 || i == 7 { 2.0 } else { 1024.0 },
        inverse: if i == 11 || i == 23 { 1e30 } else { 1.0 / 1024.0 },
        ..status()
    };
    let block = Control {
        sources: b.table(&sources),
        tensors: b.table(&rows(ROWS).map(tensor).collect::<Vec<_>>()),
        groups: b.table(&rows(2).map(group).collect::<Vec<_>>()),
        grads: b.table(&rows(ROWS).map(|r| u64::from(r % 7 != 2) * 4096).collect::<Vec<_>>()),
        progress: b.table(&rows(ROWS).map(progress).collect::<Vec<_>>()),
        scalars: b.room(48 * ROWS as u64),
        status: b.table(&[status]),
        post: b.room(size_of::<Post>() as u64),
        source_count: 3,
        tensor_count: ROWS as u64,
        group_count: 2,
        clip: [f64::INFINITY, 1.5, 1e6, 1e-50, 0.3][i / 2 % 5],
        scale: ScaleRules {
            growth: 2.0,
            backoff: 0.5,
            min: 2.0,
            max: if i == 6 { 1500.0 } else { 65536.0 },
            interval: if i.is_multiple_of(5) { 4 } else { 2 },
            hysteresis: 3,
            dynamic: u32::from(i != 3 && i != 13),
            refill: i as u32 / 2 % 2,
            late: i as u32 / 3 % 2,
            pad: 0,
        },
        // Each with a step that is taken, too.
        family: (i + i / 6) as u32 % 6,
        scaled: u32::from(!i.is_multiple_of(3) || i == 11 || i == 23),
        carried: u32::from(i.is_multiple_of(2)),
        check: u32::from(i != 10),
    };
    b.launch([1, 1, 1], 256, block.bytes())
}
