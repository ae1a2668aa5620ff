//! Which class an instruction is counted in.

use super::isa::{FloatOp, Op, Space, Type};
use crate::counters::Class;
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
