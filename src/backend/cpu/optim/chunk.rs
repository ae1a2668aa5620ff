//! One chunk of one tensor: its operands as slices, taken through the update tile by tile.

use std::ops::Range;

use half::{bf16, f16};

use super::super::fold;
use super::super::past::drain;
use super::super::wide::Work;
use super::copy::narrow_piece;
use super::memory::{part, part_ref};
use super::tile::{self, Bits, TILE, Values};
use crate::Dtype;
use crate::kernel::params::FOLD_LANES;
use crate::kernel::params::optim::{
    Chunk, MASTER_F32, MASTER_NEAREST, MASTER_OWN, MASTER_REMAINDER, Scalars, Status, Step, Tensor,
};
use crate::kernel::table::optim::Row;
use crate::optim::random::{BLOCK, Key};
use crate::optim::round::Lane;
use crate::optim::{Apply, rows};

/// A gradient.
#[derive(Clone, Copy)]
pub(super) enum Grad<'a> {
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    F32(&'a [f32]),
}

/// Elements of all tensors from which parameters are written past the caches.
const BIG: u64 = 1 << 24;

const BF16: u32 = Dtype::Bf16 as u32;
const F16: u32 = Dtype::F16 as u32;

impl Grad<'_> {
    /// # Safety
    /// `address` is 0, or valid for reads of elements `start .. start + len` of this type.
    pub(super) unsafe fn new(dtype: u32, address: u64, start: u64, len: u64) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match dtype {
                BF16 => Self::Bf16(part_ref(address, start, len)),
                F16 => Self::F16(part_ref(address, start, len)),
                _ => Self::F32(part_ref(address, start, len)),
            }
        }
    }
}

/// 16-bit parameters.
pub(super) enum Half<'a> {
    Bf16(&'a mut [bf16]),
    F16(&'a mut [f16]),
}

/// Parameters and their masters.
pub(super) enum Param<'a> {
    Own(&'a mut [f32]),
    Master(&'a mut [f32], Half<'a>),
    Remainder(&'a mut [bf16], &'a mut [u16]),
    Nearest(Half<'a>),
    Stochastic(Half<'a>),
}

impl<'a> Param<'a> {
    /// Elements `start .. start + len` of a tensor whose masters start at element `state`.
    ///
    /// # Safety
    /// As [`super::memory::slice_mut`], for those parts of both arrays.
    pub(super) unsafe fn new(
        (mode, dtype): (u32, u32),
        (address, start): (u64, u64),
        (master, state): (u64, u64),
        len: u64,
    ) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let half = || match dtype {
                F16 => Half::F16(part(address, start, len)),
                _ => Half::Bf16(part(address, start, len)),
            };
            match mode {
                MASTER_OWN => Self::Own(part(address, start, len)),
                MASTER_F32 => Self::Master(part(master, state.wrapping_add(start), len), half()),
                MASTER_REMAINDER => Self::Remainder(
                    part(address, start, len),
                    part(master, state.wrapping_add(start), len),
                ),
                MASTER_NEAREST => Self::Nearest(half()),
                _ => Self::Stochastic(half()),
            }
        }
    }
}

/// A state array's part.
pub(super) enum State<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

/// One chunk of one tensor.
pub(super) struct Job<'a> {
    pub(super) grad: Grad<'a>,
    pub(super) param: Param<'a>,
    pub(super) slots: [State<'a>; 3],
    /// LAMB: Σp² and Σu².
    pub(super) norms: &'a mut [f64],
    pub(super) len: usize,
    /// First element, in the tensor.
    pub(super) start: u64,
    pub(super) factor: f32,
    /// Whether the parameters are more than caches keep until the next forward pass.
    pub(super) big: bool,
    pub(super) key: Key,
}

impl Job<'_> {
    /// # Safety
    /// As [`super::run`]; no other job of this chunk lives.
    pub(super) unsafe fn new(
        block: &Step,
        status: &Status,
        index: usize,
        chunk: &Chunk,
        tensor: &Tensor,
    ) -> Self {
        let (start, len) = (chunk.start, u64::from(chunk.len));
        let row = u64::from(chunk.tensor);
        let state = tensor.state.wrapping_add(start);
        // SAFETY: the caller's promise. Address tables have a row for each tensor; the chunk is inside
        // the part of the tensor that is here (the layout), which parameter and gradient have (checked
        // by the plan), and whose element `i` state arrays hold at `tensor.state + i` (modulo 2⁶⁴).
        unsafe {
            let param = part_ref::<u64>(block.params, row, 1)[0];
            let grad = part_ref::<u64>(block.grads, row, 1)[0];
            let slot = |address| match block.moment {
                BF16 => State::Bf16(part(address, state, len)),
                _ => State::F32(part(address, state, len)),
            };
            Self {
                grad: Grad::new(block.grad, grad, start, len),
                param: Param::new(
                    (block.mode, block.param),
                    (param, start),
                    (block.master, tensor.state),
                    len,
                ),
                slots: [slot(block.slot0), slot(block.slot1), slot(block.slot2)],
                norms: part(block.norms, 2 * index as u64, 2),
                len: len as usize,
                start,
                factor: status.factor,
                big: block.state_len >= BIG,
                key: Key { seed: block.seed, step: status.applied, tensor: tensor.id, slot: 0 },
            }
        }
    }

    /// One rule over the whole chunk, tile by tile.
    #[inline(always)]
    fn update(&mut self, row: Row, scalars: &Scalars) {
        if self.direct(row, scalars) {
            return;
        }
        let mut buffers = Buffers::new();
        for first in (0..self.len).step_by(TILE) {
            let range = first..(first + TILE).min(self.len);
            let g: &[f32] = self.grad.load(range.clone(), self.factor, &mut buffers.g);
            let p = self.param.load(range.clone(), &mut buffers.p);
            let slots = load_slots(&mut self.slots, row.slots(), range.clone(), &mut buffers.slots);
            // Matched for each tile: what each type of parameter and state needs is compiled once, not for each rule.
            of_row(row, Tile { scalars, g, p, slots });
            self.store_slots(row.slots(), range.clone(), &mut buffers);
            self.store_param(range, &mut buffers);
        }
    }

    /// The same from where the operands lie, where state and what steps add to are f32. Returns whether they are.
    #[inline(always)]
    fn direct(&mut self, row: Row, scalars: &Scalars) -> bool {
        let mut slots: [&mut [f32]; 3] = [&mut [], &mut [], &mut []];
        for (to, slot) in slots.iter_mut().zip(&mut self.slots).take(row.slots()) {
            match slot {
                State::F32(values) => *to = values,
                State::Bf16(_) => return false,
            }
        }
        let (Param::Own(_) | Param::Master(..)) = self.param else { return false };
        let (param, factor, big) = (&mut self.param, self.factor, self.big);
        match self.grad {
            Grad::Bf16(g) => of_row(row, Whole { scalars, factor, g, param, slots, big }),
            Grad::F16(g) => of_row(row, Whole { scalars, factor, g, param, slots, big }),
            Grad::F32(g) => of_row(row, Whole { scalars, factor, g, param, slots, big }),
        }
        true
    }

    /// LAMB: new moments; of the parameter, and of the direction that the stored moments give, the
    /// sums of squares, lane by lane as [`fold`] does.
    #[inline(always)]
    fn lamb_moments<const FUSED: bool>(&mut self, scalars: &Scalars) {
        let mut buffers = Buffers::new();
        let mut lanes = [[0.0f64; FOLD_LANES]; 2];
        for first in (0..self.len).step_by(TILE) {
            let range = first..(first + TILE).min(self.len);
            let g: &[f32] = self.grad.load(range.clone(), self.factor, &mut buffers.g);
            let p = self.param.load(range.clone(), &mut buffers.p);
            let slots = load_slots(&mut self.slots, 2, range.clone(), &mut buffers.slots);
            tile::apply::<2, rows::LambMoments, f32>(scalars, 1.0, g, p, first_of(slots));
            self.store_slots(2, range.clone(), &mut buffers);
            let p = self.param.load(range.clone(), &mut buffers.p);
            let [m, v, _] = load_slots(&mut self.slots, 2, range.clone(), &mut buffers.slots);
            let lane = first % FOLD_LANES;
            let [of_p, of_u] = &mut lanes;
            let lanes = of_p[lane..].iter_mut().zip(&mut of_u[lane..]);
            let state = p.iter().zip(m.iter().zip(v.iter()));
            for ((of_p, of_u), (&p, (&m, &v))) in lanes.zip(state) {
                fold::add_square::<FUSED>(of_p, f64::from(p));
                let u = rows::lamb_direction(scalars, p, m, v);
                fold::add_square::<FUSED>(of_u, f64::from(u));
            }
        }
        let [of_p, of_u] = &mut lanes;
        self.norms.copy_from_slice(&[fold::halve(of_p), fold::halve(of_u)]);
    }

    #[inline(always)]
    fn store_slots(&mut self, count: usize, range: Range<usize>, buffers: &mut Buffers) {
        for (number, slot) in self.slots.iter_mut().take(count).enumerate() {
            if let State::Bf16(slot) = slot {
                let key = Key { slot: 1 + number as u32, ..self.key };
                tile::fill(&key, self.start + range.start as u64, &mut buffers.bits);
                tile::scatter(&mut slot[range.clone()], &buffers.slots[number], &buffers.bits);
            }
        }
    }

    #[inline(always)]
    fn store_param(&mut self, range: Range<usize>, buffers: &mut Buffers) {
        let Buffers { p, bits, .. } = buffers;
        match &mut self.param {
            Param::Own(_) | Param::Master(..) => self.param.copy(range, false),
            Param::Remainder(high, low) => {
                tile::split(&mut high[range.clone()], &mut low[range], p);
            }
            Param::Nearest(Half::Bf16(out)) => tile::narrow(&mut out[range], p),
            Param::Nearest(Half::F16(out)) => tile::narrow(&mut out[range], p),
            Param::Stochastic(out) => {
                tile::fill(&self.key, self.start + range.start as u64, bits);
                match out {
                    Half::Bf16(out) => tile::scatter(&mut out[range], p, bits),
                    Half::F16(out) => tile::scatter(&mut out[range], p, bits),
                }
            }
        }
    }
}

/// The f32 forms of one tile's operands, where memory holds others.
struct Buffers {
    g: Values,
    p: Values,
    slots: [Values; 3],
    bits: Bits,
}

impl Buffers {
    #[inline(always)]
    fn new() -> Self {
        Self {
            g: [0.0; TILE],
            p: [0.0; TILE],
            slots: [[0.0; TILE]; 3],
            bits: [[0; 2]; TILE / BLOCK],
        }
    }
}

impl Grad<'_> {
    #[inline(always)]
    fn load<'b>(&self, range: Range<usize>, factor: f32, to: &'b mut Values) -> &'b [f32] {
        let to = &mut to[..range.len()];
        match self {
            Self::Bf16(grad) => tile::widen(to, &grad[range], factor),
            Self::F16(grad) => tile::widen(to, &grad[range], factor),
            Self::F32(grad) => tile::widen(to, &grad[range], factor),
        }
        to
    }
}

impl Param<'_> {
    /// The f32 values that the rule changes: in place, or in the buffer.
    #[inline(always)]
    fn load<'b>(&'b mut self, range: Range<usize>, to: &'b mut Values) -> &'b mut [f32] {
        let to = &mut to[..range.len()];
        match self {
            Self::Own(values) | Self::Master(values, _) => return &mut values[range],
            Self::Remainder(high, low) => tile::join(to, &high[range.clone()], &low[range]),
            Self::Nearest(Half::Bf16(param)) | Self::Stochastic(Half::Bf16(param)) => {
                tile::widen(to, &param[range], 1.0);
            }
            Self::Nearest(Half::F16(param)) | Self::Stochastic(Half::F16(param)) => {
                tile::widen(to, &param[range], 1.0);
            }
        }
        to
    }

    /// A master's 16-bit copy, written `past` the caches or not.
    #[inline(always)]
    fn copy(&mut self, range: Range<usize>, past: bool) {
        match self {
            Self::Master(master, Half::Bf16(out)) => {
                narrow_piece(&mut out[range.clone()], &master[range], past);
            }
            Self::Master(master, Half::F16(out)) => {
                narrow_piece(&mut out[range.clone()], &master[range], past);
            }
            _ => {}
        }
    }
}

/// Likewise the first state arrays, `count` of them; the others are empty.
#[inline(always)]
fn load_slots<'b>(
    slots: &'b mut [State<'_>; 3],
    count: usize,
    range: Range<usize>,
    to: &'b mut [Values; 3],
) -> [&'b mut [f32]; 3] {
    let mut loaded: [&mut [f32]; 3] = [&mut [], &mut [], &mut []];
    for ((loaded, slot), to) in loaded.iter_mut().zip(slots).zip(to).take(count) {
        *loaded = match slot {
            State::F32(values) => &mut values[range.clone()],
            State::Bf16(values) => {
                let to = &mut to[..range.len()];
                tile::widen(to, &values[range.clone()], 1.0);
                to
            }
        };
    }
    loaded
}

/// What a rule is taken over.
trait Over {
    fn rule<const N: usize, R: Apply<N>>(self);
}

/// A row's rule.
#[inline(always)]
fn of_row(row: Row, over: impl Over) {
    match row {
        Row::AdamW => over.rule::<2, rows::AdamW>(),
        Row::AdamWMax => over.rule::<3, rows::AdamWMax>(),
        Row::Adam => over.rule::<2, rows::Adam>(),
        Row::AdamMax => over.rule::<3, rows::AdamMax>(),
        Row::Sgd => over.rule::<0, rows::Sgd>(),
        Row::SgdMomentum => over.rule::<1, rows::SgdMomentum>(),
        Row::Adagrad => over.rule::<1, rows::Adagrad>(),
        Row::Lion => over.rule::<1, rows::Lion>(),
        Row::LambApply => over.rule::<2, rows::LambApply>(),
        // Those that change no parameter, or that have a loop of their own.
        Row::Stats | Row::Control | Row::Convert | Row::LambMoments | Row::LambTrust => {}
    }
}

/// One tile, in f32.
struct Tile<'a> {
    scalars: &'a Scalars,
    g: &'a [f32],
    p: &'a mut [f32],
    slots: [&'a mut [f32]; 3],
}

impl Over for Tile<'_> {
    #[inline(always)]
    fn rule<const N: usize, R: Apply<N>>(self) {
        let Self { scalars, g, p, slots } = self;
        tile::apply::<N, R, f32>(scalars, 1.0, g, p, first_of(slots));
    }
}

/// The first `N` state arrays.
#[inline(always)]
fn first_of<const N: usize>(slots: [&mut [f32]; 3]) -> [&mut [f32]; N] {
    let mut slots = slots.into_iter();
    std::array::from_fn(|_| slots.next().unwrap_or_default())
}

/// A chunk whose state and own or master parameters are f32.
struct Whole<'a, 'p, G> {
    scalars: &'a Scalars,
    factor: f32,
    g: &'a [G],
    param: &'a mut Param<'p>,
    slots: [&'a mut [f32]; 3],
    big: bool,
}

impl<G: Lane> Over for Whole<'_, '_, G> {
    #[inline(always)]
    fn rule<const N: usize, R: Apply<N>>(self) {
        let Self { scalars, factor, g, param, slots, big } = self;
        let mut slots = first_of::<N>(slots);
        for first in (0..g.len()).step_by(TILE) {
            let range = first..(first + TILE).min(g.len());
            let (Param::Own(p) | Param::Master(p, _)) = &mut *param else { return };
            let (g, p) = (&g[range.clone()], &mut p[range.clone()]);
            let slots = slots.each_mut().map(|slot| &mut slot[range.clone()]);
            tile::apply::<N, R, G>(scalars, factor, g, p, slots);
            param.copy(range, big);
        }
        if big {
            drain();
        }
    }
}

/// One row over one chunk.
pub(super) struct Update<'a> {
    pub(super) job: Job<'a>,
    pub(super) row: Row,
    pub(super) scalars: &'a Scalars,
}

impl Work for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { mut job, row, scalars } = self;
        match row {
            Row::LambMoments => job.lamb_moments::<FUSED>(scalars),
            _ => job.update(row, scalars),
        }
    }
}
