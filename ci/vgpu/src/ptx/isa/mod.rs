//! The instruction set as data: what an instruction does, decoded once.

mod op;

pub use op::{Guard, Instruction, Op};

use crate::number::Rounding;

/// A register's number. Predicates are registers that hold 0 or 1.
pub type Reg = u32;

/// Types of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Bits or unsigned, of 1 to 8 bytes.
    U(u8),
    /// Signed, of 1 to 8 bytes.
    S(u8),
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
    Pred,
}

impl Type {
    /// Bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::U(n) | Self::S(n) => n.into(),
            Self::F16 | Self::Bf16 => 2,
            Self::F16x2 | Self::Bf16x2 | Self::F32 => 4,
            Self::F64 => 8,
            Self::Pred => 1,
        }
    }

    /// The type with this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "b8" | "u8" => Self::U(1),
            "b16" | "u16" => Self::U(2),
            "b32" | "u32" => Self::U(4),
            "b64" | "u64" => Self::U(8),
            "s8" => Self::S(1),
            "s16" => Self::S(2),
            "s32" => Self::S(4),
            "s64" => Self::S(8),
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "pred" => Self::Pred,
            _ => return None,
        })
    }
}

/// Registers that the hardware fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    Nwarpid,
    /// Masks of lanes below, up to, above… the own.
    MaskEq,
    MaskLe,
    MaskLt,
    MaskGe,
    MaskGt,
    /// A clock: instructions so far.
    Clock,
    DynamicShared,
    TotalShared,
    SmId,
    NsmId,
    GridId,
}

/// What a register holds that no instruction writes: sources are all registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fixed {
    Constant(u64),
    Special(Special),
}

/// Where an address points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Generic,
    /// Constant memory is global memory that kernels may not write.
    Global,
    Shared,
    Local,
    Param,
}

/// A base and a distance from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub base: Reg,
    pub offset: u64,
}

/// Integer and logic operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegerOp {
    Add,
    AddSat,
    Sub,
    SubSat,
    MulLo,
    MulHi,
    MulWide,
    MadLo,
    MadHi,
    MadWide,
    Sad,
    Div,
    Rem,
    Min,
    Max,
    Abs,
    Neg,
    And,
    Or,
    Xor,
    Not,
    Cnot,
    Shl,
    Shr,
    Popc,
    Clz,
    Brev,
    Bfind,
    BfindShift,
    Bfe,
    Bfi,
    Lop3(u8),
    Prmt(Permute),
    ShiftLeftWrap,
    ShiftLeftClamp,
    ShiftRightWrap,
    ShiftRightClamp,
}

/// Modes of `prmt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permute {
    Generic,
    Forward4,
    Backward4,
    Replicate8,
    EdgeClampLeft,
    EdgeClampRight,
    Replicate16,
}

/// Floating-point operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    DivApprox,
    Min,
    Max,
    Abs,
    Neg,
    CopySign,
    Sqrt,
    SqrtApprox,
    Rsqrt,
    Rcp,
    RcpApprox,
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
}

/// How a floating-point result is made of the exact one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatMode {
    pub rounding: Rounding,
    /// Subnormal inputs and results are zeros.
    pub flush: bool,
    /// The result is clamped to [0, 1], NaN to 0.
    pub saturate: bool,
    /// Negative results become 0 (`.relu`).
    pub relu: bool,
    /// A NaN operand makes `min` and `max` NaN.
    pub nan: bool,
}

/// How `cvt` rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvertMode {
    pub float: FloatMode,
    /// The result is a whole number of the same or another floating type (`.rni` and the like).
    pub integral: bool,
}

/// Comparisons. Those that end in U are true where an operand is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    EqU,
    NeU,
    LtU,
    LeU,
    GtU,
    GeU,
    Num,
    Nan,
}

/// How a comparison is combined with a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    And,
    Or,
    Xor,
}

/// Atomic operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Increment,
    Decrement,
}

/// How an access takes part in the order of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// Not at all: what nothing else orders is a race.
    Weak,
    /// `.relaxed` and `.volatile`: no race with others like it, and no order.
    Relaxed,
    /// `.acquire` and `.release`: others like it are ordered by what they hand over.
    Fenced,
}

/// Ways in which `shfl` picks a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// Votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}
