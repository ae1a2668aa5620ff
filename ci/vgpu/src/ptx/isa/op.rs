//! Operations and instructions.

use super::*;
use crate::counters::Class;

/// What an instruction does.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Move {
        dst: Reg,
        src: Reg,
    },
    Pack {
        dst: Reg,
        src: Vec<Reg>,
        bytes: u32,
    },
    Unpack {
        dst: Vec<Option<Reg>>,
        src: Reg,
        bytes: u32,
    },
    Integer {
        op: IntegerOp,
        ty: Type,
        dst: Reg,
        src: Vec<Reg>,
    },
    Float {
        op: FloatOp,
        ty: Type,
        mode: FloatMode,
        dst: Reg,
        src: Vec<Reg>,
    },
    Convert {
        to: Type,
        from: Type,
        mode: ConvertMode,
        dst: Reg,
        src: Vec<Reg>,
    },
    /// `dst = a ? b`, `other = !(a ? b)`, both combined with a predicate.
    SetPredicate {
        cmp: Compare,
        ty: Type,
        flush: bool,
        dst: Option<Reg>,
        other: Option<Reg>,
        a: Reg,
        b: Reg,
        combine: Option<(Combine, Reg, bool)>,
    },
    /// All ones (or 1.0) where the comparison holds.
    Set {
        cmp: Compare,
        ty: Type,
        flush: bool,
        float_result: bool,
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    Select {
        dst: Reg,
        a: Reg,
        b: Reg,
        predicate: Reg,
    },
    Load {
        space: Space,
        ty: Type,
        dst: Vec<Option<Reg>>,
        address: Address,
        strength: Strength,
    },
    Store {
        space: Space,
        ty: Type,
        src: Vec<Reg>,
        address: Address,
        strength: Strength,
    },
    /// Adds (or takes away) the start of a memory's window in the generic address space.
    ToGeneric {
        space: Space,
        dst: Reg,
        src: Reg,
    },
    FromGeneric {
        space: Space,
        dst: Reg,
        src: Reg,
    },
    IsSpace {
        space: Space,
        dst: Reg,
        src: Reg,
    },
    Atomic {
        op: AtomicOp,
        ty: Type,
        space: Space,
        dst: Option<Reg>,
        address: Address,
        a: Reg,
        b: Reg,
        /// It fences: before and after.
        fences: bool,
    },
    CopyAsync {
        bytes: u32,
        to: Address,
        from: Address,
        source_bytes: Option<Reg>,
    },
    CommitAsync,
    /// Waits until at most `pending` of the newest groups are left, or for all, committed or not.
    WaitAsync {
        pending: u32,
        all: bool,
    },
    MatrixLoad {
        transpose: bool,
        dst: Vec<Reg>,
        address: Address,
    },
    /// d (16 × 8) = a (16 × k) · b (k × 8) + c
    MatrixMultiply {
        half: bool,
        dst: [Reg; 4],
        a: Vec<Reg>,
        b: Vec<Reg>,
        c: [Reg; 4],
    },
    Shuffle {
        mode: Shuffle,
        dst: Reg,
        found: Option<Reg>,
        value: Reg,
        lane: Reg,
        clamp: Reg,
        members: Reg,
    },
    Vote {
        mode: Vote,
        dst: Reg,
        predicate: Reg,
        negated: bool,
        members: Reg,
    },
    MatchAny {
        bytes: u32,
        dst: Reg,
        value: Reg,
        members: Reg,
    },
    MatchAll {
        bytes: u32,
        dst: Reg,
        all: Option<Reg>,
        value: Reg,
        members: Reg,
    },
    Reduce {
        op: IntegerOp,
        signed: bool,
        dst: Reg,
        value: Reg,
        members: Reg,
    },
    ActiveMask {
        dst: Reg,
    },
    /// All threads of the block, or `count` of them.
    Barrier {
        id: Reg,
        count: Option<Reg>,
        wait: bool,
    },
    WarpBarrier {
        members: Reg,
    },
    Fence,
    /// Advice to caches.
    Nothing,
    Branch {
        target: u32,
    },
    Exit,
    Trap,
}

/// A predicate that guards an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    pub predicate: Reg,
    pub negated: bool,
}

/// One instruction of a program.
#[derive(Debug, Clone)]
pub struct Instruction {
    pub guard: Option<Guard>,
    pub op: Op,
    pub class: Class,
    /// The line in the file.
    pub line: u32,
    /// As it is written.
    pub text: String,
}

impl Op {
    /// What it is counted as.
    pub fn class(&self) -> Class {
        match self {
            Self::Move { .. } | Self::Pack { .. } | Self::Unpack { .. } | Self::Convert { .. } => {
                Class::Move
            }
            Self::SetPredicate { .. } | Self::Set { .. } | Self::Select { .. } => Class::Integer,
            Self::Integer { .. }
            | Self::ToGeneric { .. }
            | Self::FromGeneric { .. }
            | Self::IsSpace { .. } => Class::Integer,
            Self::Float { op, ty, .. } => match op {
                FloatOp::Exp2
                | FloatOp::Log2
                | FloatOp::Sin
                | FloatOp::Cos
                | FloatOp::Tanh
                | FloatOp::Rsqrt
                | FloatOp::RcpApprox
                | FloatOp::SqrtApprox
                | FloatOp::DivApprox => Class::Special,
                _ if *ty == Type::F64 => Class::Double,
                _ => Class::Float,
            },
            Self::Load { space, .. } | Self::Store { space, .. } => match space {
                Space::Generic | Space::Global => Class::Global,
                Space::Shared => Class::Shared,
                Space::Local | Space::Param => Class::Private,
            },
            Self::Atomic { .. } => Class::Atomic,
            Self::CopyAsync { .. } | Self::CommitAsync | Self::WaitAsync { .. } => Class::Async,
            Self::MatrixLoad { .. } => Class::Shared,
            Self::MatrixMultiply { .. } => Class::Matrix,
            Self::Shuffle { .. }
            | Self::Vote { .. }
            | Self::MatchAny { .. }
            | Self::MatchAll { .. }
            | Self::Reduce { .. }
            | Self::ActiveMask { .. } => Class::CrossLane,
            Self::Barrier { .. } | Self::WarpBarrier { .. } | Self::Fence => Class::Barrier,
            Self::Nothing | Self::Branch { .. } | Self::Exit | Self::Trap => Class::Control,
        }
    }
}
