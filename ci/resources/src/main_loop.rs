//! What a kernel's main loop is made of: the shortest loop that multiplies matrices. Counted in machine code, so it
//! is what the hardware will issue for each step of k.

use std::fmt;

/// An instruction of a kernel, in the order of addresses.
pub struct Instruction {
    /// Its address.
    pub address: u64,
    /// Where it may branch to.
    pub target: Option<u64>,
    /// What it is to a main loop.
    pub kind: Kind,
}

/// Kinds of instructions that main loops are judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A step of the matrix unit.
    Matrix,
    /// A read of fragments from shared memory, 16 bytes a lane.
    Fragment,
    /// A narrower read of shared memory.
    NarrowFragment,
    /// A load from global memory, or an asynchronous copy.
    Load,
    /// A write to shared memory.
    Write,
    /// A wait for all threads of the block.
    Barrier,
    /// A move between accumulation and other registers.
    Move,
    /// Anything else.
    Other,
}

/// Counts of the kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MainLoop {
    pub matrix: u32,
    pub fragments: u32,
    pub narrow: u32,
    pub loads: u32,
    pub writes: u32,
    pub barriers: u32,
    pub moves: u32,
    pub all: u32,
}

impl MainLoop {
    /// Of a kernel; `None` where no loop multiplies matrices.
    pub fn of(code: &[Instruction]) -> Option<Self> {
        let loops = code.iter().enumerate().filter_map(|(end, branch)| {
            let start = code.partition_point(|i| i.address < branch.target.unwrap_or(u64::MAX));
            let body = code.get(start..=end)?;
            body.iter().any(|i| i.kind == Kind::Matrix).then_some(body)
        });
        loops.min_by_key(|body| body.len()).map(Self::count)
    }

    fn count(body: &[Instruction]) -> Self {
        let of = |kind| body.iter().filter(|i| i.kind == kind).count() as u32;
        Self {
            matrix: of(Kind::Matrix),
            fragments: of(Kind::Fragment),
            narrow: of(Kind::NarrowFragment),
            loads: of(Kind::Load),
            writes: of(Kind::Write),
            barriers: of(Kind::Barrier),
            moves: of(Kind::Move),
            all: body.len() as u32,
        }
    }

    /// What the loop of a large tile breaks of the rules that hold on both targets; the rest is compared with
    /// `ci/resources.txt`.
    pub fn faults(&self) -> Option<&'static str> {
        match self {
            Self { barriers, .. } if *barriers != 1 => Some("not one barrier a step"),
            Self { moves: 1.., .. } => Some("accumulation registers are moved"),
            Self { narrow: 1.., .. } => Some("fragments are read in less than 16 bytes"),
            _ => None,
        }
    }
}

/// Heads of the columns that [`MainLoop`] prints.
pub const COLUMNS: &str = "matrix fragments loads writes barriers instructions";

impl fmt::Display for MainLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matrix, fragments, loads, writes, barriers, all, .. } = self;
        write!(f, "{matrix:>6} {fragments:>9} {loads:>5} {writes:>6} {barriers:>8} {all:>12}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An outer loop around an inner one, which has the barrier, and a loop without matrices that is shorter.
    #[test]
    fn the_shortest_loop_that_multiplies_counts() {
        let mut code: Vec<Instruction> = (0..20)
            .map(|i| Instruction { address: 8 * i, target: None, kind: Kind::Other })
            .collect();
        code[2].kind = Kind::Fragment;
        (code[5].kind, code[6].kind, code[7].kind) = (Kind::Matrix, Kind::Fragment, Kind::Barrier);
        code[9].target = Some(8 * 4);
        code[12].target = Some(8 * 11);
        code[15].target = Some(8);
        code[16].target = Some(8 * 19); // forwards
        let found = MainLoop::of(&code).unwrap();
        let expected =
            MainLoop { matrix: 1, fragments: 1, barriers: 1, all: 6, ..MainLoop::default() };
        assert_eq!(found, expected);
        assert_eq!(found.faults(), None);
        code[5].kind = Kind::Other;
        assert_eq!(MainLoop::of(&code), None);
        assert!(MainLoop { barriers: 2, ..expected }.faults().is_some());
        assert!(MainLoop { moves: 1, ..expected }.faults().is_some());
        assert!(MainLoop { narrow: 1, ..expected }.faults().is_some());
    }
}
