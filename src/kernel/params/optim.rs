//! Parameter blocks of `optim`, and the plain data that its kernels share on the device.

/// One launch of this op.
#[derive(Debug, Clone, Copy)]
pub enum Block {
    /// Gradients → partials.
    Stats(Stats),
    /// Partials → decision, loss scale, counters, scalars.
    Control(Control),
    /// The update of every tensor.
    Step(Step),
    /// Masters from, or to, parameters or f32 values.
    Convert(Convert),
}

/// No tensor.
pub const NONE: u32 = u32::MAX;

block! {
    /// A piece of a tensor: at most [`PARTIAL_CHUNK`](super::PARTIAL_CHUNK) elements.
    pub struct Chunk {
        /// First element, counted in the tensor.
        pub start: u64,
        /// Row of the tensor table.
        pub tensor: u32,
        /// Elements.
        pub len: u32,
    }
}

block! {
    /// What never changes about a tensor, or about the part of one that is here: every array is
    /// addressed by elements of the whole tensor. Empty ones have no row.
    pub struct Tensor {
        /// The tensor's element 0 in every state array, modulo 2⁶⁴: before the array where the part
        /// starts later.
        pub state: u64,
        /// Elements of the part.
        pub len: u64,
        /// Multiplies the group's learning rate.
        pub lr_factor: f64,
        /// Multiplies the group's weight decay.
        pub decay_factor: f64,
        /// First row of the chunk table; for LAMB's ratios, of the table of norms.
        pub first_chunk: u32,
        /// Rows there.
        pub chunks: u32,
        /// Row of the group table.
        pub group: u32,
        /// Place in the caller's list: names the tensor in reports and keys its random numbers.
        pub id: u32,
    }
}

block! {
    /// Hyper-parameters of a parameter group. What a rule does not have is 0.
    pub struct Group {
        /// Learning rate.
        pub lr: f64,
        /// Weight decay.
        pub decay: f64,
        /// β1, or momentum.
        pub beta1: f64,
        /// β2.
        pub beta2: f64,
        /// ε.
        pub eps: f64,
        /// SGD: dampening. Adagrad: decay of the learning rate.
        pub extra: f64,
        /// 1: Nesterov.
        pub flags: u32,
        /// Zero.
        pub pad: u32,
    }
}

block! {
    /// How far a tensor has come. Changed by steps that were applied to it, never by others.
    pub struct Progress {
        /// Steps applied.
        pub step: u64,
        /// β1 multiplied `step` times in f64.
        pub beta1_power: f64,
        /// β2 multiplied `step` times in f64.
        pub beta2_power: f64,
    }
}

block! {
    /// A tensor's f32 constants in this step; which of them a rule uses, its file says.
    pub struct Scalars {
        /// Step size.
        pub a: f32,
        /// Weight decay, as the rule adds it.
        pub w: f32,
        /// β1, or momentum.
        pub b1: f32,
        /// 1 − β1, or 1 − dampening.
        pub c1: f32,
        /// β2.
        pub b2: f32,
        /// 1 − β2.
        pub c2: f32,
        /// 1/√(1 − β2ᵗ).
        pub s: f32,
        /// ε.
        pub eps: f32,
        /// SGD: momentum of the look-ahead. LAMB: 1/(1 − β1ᵗ).
        pub n: f32,
        /// 1: Nesterov.
        pub flags: u32,
        /// 1: the tensor has a gradient in this step.
        pub active: u32,
        /// Zero.
        pub pad: u32,
    }
}

block! {
    /// What the optimizer knows of itself, and the outcome of its last control stage.
    pub struct Status {
        /// Calls of control.
        pub attempts: u64,
        /// Steps applied; keys the random numbers.
        pub applied: u64,
        /// Last step: NaN and ±Inf found.
        pub non_finite: u64,
        /// Last step: global norm of the unscaled gradients.
        pub norm: f64,
        /// Last step: min(1, limit / (norm + 1e-6)).
        pub clip: f64,
        /// Loss scale of the next step.
        pub scale: f32,
        /// 1/scale, made in f64.
        pub inverse: f32,
        /// Good steps counted towards growth.
        pub growth_tracker: u32,
        /// Overflows still forgiven.
        pub hysteresis: u32,
        /// Skipped steps in a row.
        pub skips: u32,
        /// Last step: scale that its gradients carried.
        pub used_scale: f32,
        /// Last step: the one factor of every gradient, clip/scale.
        pub factor: f32,
        /// Last step: 0 applied, 1 non-finite gradient, 2 norm overflow.
        pub skip: u32,
        /// Last step: the first tensor with a non-finite gradient, or NONE.
        pub tensor: u32,
        /// Last step: 1 if it was skipped with the scale already at its minimum.
        pub exhausted: u32,
    }
}

block! {
    /// The outcome of a control stage, posted where the host can read it without waiting. The host
    /// has a whole one if both numbers are the same.
    pub struct Post {
        /// `status.attempts`, written first.
        pub begun: u64,
        /// The outcome.
        pub status: Status,
        /// `status.attempts`, written last.
        pub ended: u64,
    }
}

block! {
    /// One list of partials.
    pub struct Source {
        /// Partials.
        pub partials: u64,
        /// How many.
        pub count: u64,
    }
}

block! {
    /// The loss scale's rules.
    pub struct ScaleRules {
        /// Multiplies the scale after `interval` good steps.
        pub growth: f64,
        /// Multiplies the scale after an overflow.
        pub backoff: f64,
        /// Smallest scale.
        pub min: f32,
        /// Largest scale.
        pub max: f32,
        /// Good steps in a row between growths.
        pub interval: u32,
        /// Overflows before the scale backs off.
        pub hysteresis: u32,
        /// 0: fixed scale; 1: dynamic.
        pub dynamic: u32,
        /// 1: any good step refills the hysteresis; 0: only growth does.
        pub refill: u32,
        /// 1: DeepSpeed's count, which grows one step later.
        pub late: u32,
        /// Zero.
        pub pad: u32,
    }
}

block! {
    /// Block of `stats`.
    pub struct Stats {
        /// [`Chunk`] table.
        pub chunks: u64,
        /// [`Tensor`] table.
        pub tensors: u64,
        /// Addresses of the gradients, one for each row of the tensor table.
        pub grads: u64,
        /// [`Status`].
        pub status: u64,
        /// [`Partial`](super::Partial), one for each chunk.
        pub partials: u64,
        /// Rows of the chunk table.
        pub chunk_count: u64,
        /// Rows of the tensor table.
        pub tensor_count: u64,
        /// Storage type of gradients.
        pub grad: u32,
        /// Zero.
        pub pad: u32,
    }
}

block! {
    /// Block of `control`.
    pub struct Control {
        /// [`Source`] table.
        pub sources: u64,
        /// [`Tensor`] table.
        pub tensors: u64,
        /// [`Group`] table.
        pub groups: u64,
        /// Addresses of the gradients: 0 where a tensor has none.
        pub grads: u64,
        /// [`Progress`], one for each row of the tensor table.
        pub progress: u64,
        /// [`Scalars`], one for each row of the tensor table.
        pub scalars: u64,
        /// [`Status`].
        pub status: u64,
        /// [`Post`], in memory of the host.
        pub post: u64,
        /// Rows of the source table.
        pub source_count: u64,
        /// Rows of the tensor table.
        pub tensor_count: u64,
        /// Rows of the group table.
        pub group_count: u64,
        /// Largest norm; ∞ for none.
        pub clip: f64,
        /// The loss scale's rules.
        pub scale: ScaleRules,
        /// [`Family`](crate::kernel::table::optim::Family) as a number.
        pub family: u32,
        /// 1: the partials are of gradients that still carry the scale.
        pub scaled: u32,
        /// 1: the gradients that `step` will read carry the scale.
        pub carried: u32,
        /// 1: a non-finite gradient skips the step.
        pub check: u32,
    }
}

block! {
    /// Block of every `step` row.
    pub struct Step {
        /// [`Chunk`] table.
        pub chunks: u64,
        /// [`Tensor`] table.
        pub tensors: u64,
        /// [`Scalars`] table.
        pub scalars: u64,
        /// [`Status`].
        pub status: u64,
        /// Addresses of the parameters, one for each row of the tensor table.
        pub params: u64,
        /// Addresses of the gradients.
        pub grads: u64,
        /// f32 masters, or 16-bit remainders.
        pub master: u64,
        /// First state array.
        pub slot0: u64,
        /// Second state array.
        pub slot1: u64,
        /// Third state array.
        pub slot2: u64,
        /// LAMB: Σp² and Σu² of every chunk, two f64 each; for the ratios, of the whole tensors' chunks.
        pub norms: u64,
        /// Rows of the chunk table.
        pub chunk_count: u64,
        /// Rows of the tensor table.
        pub tensor_count: u64,
        /// Elements of every state array.
        pub state_len: u64,
        /// Seed of stochastic rounding.
        pub seed: u64,
        /// [`Row`](crate::kernel::table::optim::Row) as a number.
        pub row: u32,
        /// Storage type of parameters.
        pub param: u32,
        /// Storage type of gradients.
        pub grad: u32,
        /// Storage type of moments.
        pub moment: u32,
        /// How parameters are kept: `MASTER_*`.
        pub mode: u32,
        /// Zero.
        pub pad: u32,
    }
}

/// Parameters are f32 and are updated themselves.
pub const MASTER_OWN: u32 = 0;
/// An f32 master; parameters are rounded from it.
pub const MASTER_F32: u32 = 1;
/// bf16 parameters and 16-bit remainders.
pub const MASTER_REMAINDER: u32 = 2;
/// No master; stochastic rounding.
pub const MASTER_STOCHASTIC: u32 = 3;
/// No master; rounding to nearest.
pub const MASTER_NEAREST: u32 = 4;

/// Masters from parameters.
pub const CONVERT_LOAD: u32 = 0;
/// Masters and parameters from f32 values.
pub const CONVERT_STORE: u32 = 1;
/// f32 values from masters.
pub const CONVERT_EXPORT: u32 = 2;
/// Parameters from masters.
pub const CONVERT_ROUND: u32 = 3;

block! {
    /// Block of `convert`.
    pub struct Convert {
        /// [`Chunk`] table.
        pub chunks: u64,
        /// [`Tensor`] table.
        pub tensors: u64,
        /// Addresses of the parameters.
        pub params: u64,
        /// Addresses of f32 values.
        pub values: u64,
        /// f32 masters, or 16-bit remainders.
        pub master: u64,
        /// First row of the chunk table to convert.
        pub first_chunk: u64,
        /// How many rows.
        pub chunk_count: u64,
        /// Rows of the tensor table.
        pub tensor_count: u64,
        /// Elements of the master array.
        pub state_len: u64,
        /// Storage type of parameters.
        pub param: u32,
        /// `MASTER_*`.
        pub mode: u32,
        /// `CONVERT_*`.
        pub direction: u32,
        /// Zero.
        pub pad: u32,
    }
}
