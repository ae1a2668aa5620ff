//! Everything that can be found wrong before anything is written, and the work list.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::rule::NOT_NEGATIVE;
use super::{Config, Group, Master, Rule};
use crate::kernel::params::PARTIAL_CHUNK;
use crate::kernel::params::optim::{
    self as params, Chunk, MASTER_F32, MASTER_NEAREST, MASTER_OWN, MASTER_REMAINDER,
    MASTER_STOCHASTIC,
};
use crate::lend::List;
use crate::{Dtype, Error, Result, Stream};

/// Tensors start at multiples of this many elements in every state array: 256 bytes of f32.
const STATE_ALIGN: usize = 64;

/// One tensor of the caller's list.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) len: usize,
    /// Whose rates it has: state files say.
    #[cfg(feature = "safetensors")]
    pub(super) group: usize,
    /// The elements whose state is here: all of them, or this rank's.
    pub(super) part: Range<usize>,
    /// Row of the tensor table; none for an empty part.
    pub(super) row: Option<usize>,
}

/// The work list: pure data, the same for every device.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) items: Vec<Item>,
    pub(super) tensors: Vec<params::Tensor>,
    /// Pieces of all parts, in order; see [`cut`](Layout::cut).
    pub(super) chunks: Vec<Chunk>,
    /// How many they will be.
    pub(super) chunk_count: usize,
    /// How many pieces the whole tensors have.
    pub(super) whole_chunks: usize,
    /// Of each row, the first piece of the whole tensor.
    pub(super) whole_first: Vec<u32>,
    /// Elements of every state array.
    pub(super) state_len: usize,
}

const NEW: &str = "optim::new";

impl Layout {
    /// Of whole tensors, or of a part of each, cut at multiples of a chunk.
    pub(super) fn new(groups: &[Group], parts: Option<&[Range<usize>]>) -> Result<Self> {
        let mut layout = Self {
            items: Vec::new(),
            tensors: Vec::new(),
            chunks: Vec::new(),
            chunk_count: 0,
            whole_chunks: 0,
            whole_first: Vec::new(),
            state_len: 0,
        };
        for (group, of) in groups.iter().enumerate() {
            for (at, tensor) in of.tensors.iter().enumerate() {
                layout.push(group, tensor, parts).map_err(|error| match error {
                    Some(error) => error,
                    None => Error::shape(
                        NEW,
                        format!("groups[{group}].tensors[{at}]"),
                        "lengths whose bytes and whose chunks of 16384 elements can be counted",
                        tensor.len,
                    ),
                })?;
                for (name, factor) in
                    [("lr_factor", tensor.lr_factor), ("decay_factor", tensor.decay_factor)]
                {
                    if !(factor >= 0.0 && (factor as f32).is_finite()) {
                        let arg = format!("groups[{group}].tensors[{at}].{name}");
                        return Err(Error::range(NEW, arg, NOT_NEGATIVE, format!("{factor:?}")));
                    }
                }
            }
        }
        layout.unique_names()?;
        Ok(layout)
    }

    /// `Err(None)` where a size cannot be counted.
    fn push(
        &mut self,
        group: usize,
        tensor: &super::Tensor,
        parts: Option<&[Range<usize>]>,
    ) -> Result<(), Option<Error>> {
        let id = u32::try_from(self.items.len()).ok().filter(|&id| id != params::NONE);
        let id = id.ok_or(None)?;
        let part = parts.map_or(0..tensor.len, |parts| parts[id as usize].clone());
        let cut = |at: usize| at.is_multiple_of(PARTIAL_CHUNK) || at == tensor.len;
        assert!(part.end <= tensor.len && cut(part.start) && cut(part.end), "cut between chunks");
        let (name, len) = (tensor.name.clone(), tensor.len);
        let item = Item {
            name,
            len,
            #[cfg(feature = "safetensors")]
            group,
            part: part.clone(),
            row: None,
        };
        self.items.push(item);
        let first = self.whole_chunks;
        let end = first.checked_add(tensor.len.div_ceil(PARTIAL_CHUNK));
        let end = end.and_then(|end| u32::try_from(end).ok()).ok_or(None)?;
        self.whole_chunks = end as usize;
        if part.is_empty() {
            return Ok(());
        }
        let first_chunk = self.chunk_count;
        let chunks = part.len().div_ceil(PARTIAL_CHUNK);
        let state = self.state_len;
        let padded = part.len().checked_next_multiple_of(STATE_ALIGN);
        let state_len = padded.and_then(|padded| state.checked_add(padded)).ok_or(None)?;
        // In bytes of the widest element too.
        state_len.checked_mul(8).filter(|&bytes| bytes <= isize::MAX as usize).ok_or(None)?;
        let row = self.tensors.len();
        self.whole_first.push(first as u32);
        self.tensors.push(params::Tensor {
            state: (state as u64).wrapping_sub(part.start as u64),
            len: part.len() as u64,
            lr_factor: tensor.lr_factor,
            decay_factor: tensor.decay_factor,
            first_chunk: first_chunk as u32,
            chunks: chunks as u32,
            group: group as u32,
            id,
        });
        (self.state_len, self.chunk_count) = (state_len, first_chunk + chunks);
        self.items[id as usize].row = Some(row);
        Ok(())
    }

    /// Where the state of a row's part starts in every state array.
    pub(super) fn first_state(&self, row: usize) -> usize {
        let tensor = &self.tensors[row];
        let part = &self.items[tensor.id as usize].part;
        tensor.state.wrapping_add(part.start as u64) as usize
    }

    /// Makes the list of chunks. Not before the state that they work on is allocated: a length for
    /// which there is no memory is an error then, and the list not far larger than the machine.
    pub(super) fn cut(&mut self) -> Result<()> {
        self.chunks.try_reserve_exact(self.chunk_count).map_err(|_| Error::OutOfMemory {
            bytes: self.chunk_count.saturating_mul(size_of::<Chunk>()),
            device: "the host".into(),
        })?;
        for (row, tensor) in self.tensors.iter().enumerate() {
            let part = &self.items[tensor.id as usize].part;
            for start in part.clone().step_by(PARTIAL_CHUNK) {
                let len = (part.end - start).min(PARTIAL_CHUNK) as u32;
                self.chunks.push(Chunk { start: start as u64, tensor: row as u32, len });
            }
        }
        Ok(())
    }

    /// The rows, with the pieces of the whole tensors: for norms of whole tensors.
    pub(super) fn whole_tensors(&self) -> Vec<params::Tensor> {
        let rows = self.tensors.iter().zip(&self.whole_first);
        let whole = |(row, &first_chunk): (&params::Tensor, &u32)| {
            let len = self.items[row.id as usize].len;
            params::Tensor { first_chunk, chunks: len.div_ceil(PARTIAL_CHUNK) as u32, ..*row }
        };
        rows.map(whole).collect()
    }

    /// Names name tensors in files.
    fn unique_names(&self) -> Result<()> {
        let mut names: Vec<&str> = self.items.iter().map(|item| item.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => Err(Error::range(
                NEW,
                "groups",
                "every tensor's name once",
                format!("{} twice", pair[0]),
            )),
        }
    }
}

/// All groups follow one rule, within ranges.
pub(super) fn check_rules(groups: &[Group]) -> Result<()> {
    for (index, group) in groups.iter().enumerate() {
        group.rule.check(index)?;
        let (first, this) = (&groups[0].rule, &group.rule);
        // State arrays are shared; momentum 0 beside momentum is fine.
        let same = first.family() == this.family()
            && (matches!(this, Rule::Sgd(_)) || first.slots() == this.slots());
        let same = same && first.initial_state() == this.initial_state();
        if !same {
            let reason = format!(
                "groups[{index}] follows {this:?} and groups[0] {first:?}: the groups of one \
                 optimizer share rule, amsgrad and initial state; make two optimizers"
            );
            return Err(Error::unsupported(NEW, reason));
        }
    }
    Ok(())
}

/// The rule whose rows and slots serve all groups.
pub(super) fn widest(groups: &[Group]) -> Rule {
    let widest = groups.iter().map(|group| group.rule).max_by_key(|rule| rule.slots().len());
    widest.unwrap_or(Rule::Sgd(super::Sgd::default()))
}

/// How parameters of this type are kept.
pub(super) fn mode(param: Dtype, config: &Config) -> Result<u32> {
    match (param, config.master) {
        (Dtype::F32, Master::F32) => Ok(MASTER_OWN),
        (_, Master::F32) => Ok(MASTER_F32),
        (Dtype::Bf16, Master::Remainder) => Ok(MASTER_REMAINDER),
        (Dtype::Bf16 | Dtype::F16, Master::Stochastic) => Ok(MASTER_STOCHASTIC),
        (Dtype::Bf16 | Dtype::F16, Master::Nearest) => Ok(MASTER_NEAREST),
        (param, master) => Err(Error::unsupported(
            NEW,
            format!(
                "Master::{master:?} with {param} parameters; Master::F32 takes all types, \
                 Remainder bf16, Stochastic and Nearest bf16 and f16"
            ),
        )),
    }
}

pub(super) fn check_config(config: &Config) -> Result<()> {
    match config.clip {
        // 1e-6 in the denominator: a limit that small asks for gradients of 0.
        Some(clip) if !(clip > 0.0 && clip.is_finite()) => {
            Err(Error::range(NEW, "config.clip", "a finite number above 0", clip))
        }
        _ => Ok(()),
    }
}

/// A learning rate set later.
pub(super) fn check_lr(groups: usize, group: usize, lr: f64) -> Result<()> {
    const OP: &str = "optim::set_lr";
    if group >= groups {
        return Err(Error::range(OP, "group", format!("less than {groups}"), group));
    }
    if !(lr >= 0.0 && (lr as f32).is_finite()) {
        return Err(Error::range(OP, "lr", NOT_NEGATIVE, format!("{lr:?}")));
    }
    Ok(())
}

/// Addresses of lent tensors, by row of the tensor table, and the memory they span. Reused.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) rows: Vec<u64>,
    /// Those of the list that is being checked, until all of it is right.
    found: Vec<u64>,
    /// Whether the device's copy is out of date.
    pub(super) changed: bool,
    /// Whether anything has changed since the last check for overlap.
    pub(super) unchecked: bool,
}

impl Addresses {
    pub(super) fn new(rows: usize) -> Self {
        // No address is this one: the first gathering counts as a change.
        Self { rows: vec![u64::MAX; rows], found: vec![0; rows], changed: true, unchecked: true }
    }

    /// All that was found is right: it takes the place of what was there.
    fn take(&mut self) {
        let other = self.rows != self.found;
        self.changed |= other;
        self.unchecked |= other;
        std::mem::swap(&mut self.rows, &mut self.found);
    }
}

/// The checks that every stage makes on a list of tensors.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a> {
    pub(super) op: &'static str,
    pub(super) list: &'static str,
    pub(super) stream: &'a Stream,
    pub(super) items: &'a [Item],
    /// Where they are only the parts whose state is here (gradients), their type; `None`: they are whole.
    parts: Option<Dtype>,
}

impl<'a> Arguments<'a> {
    /// Tensors as the caller declared them.
    pub(super) fn whole(
        op: &'static str,
        list: &'static str,
        stream: &'a Stream,
        items: &'a [Item],
    ) -> Self {
        Self { op, list, stream, items, parts: None }
    }

    /// The parts of them whose state is here.
    pub(super) fn parts(
        op: &'static str,
        list: &'static str,
        stream: &'a Stream,
        items: &'a [Item],
        dtype: Dtype,
    ) -> Self {
        Self { parts: Some(dtype), ..Self::whole(op, list, stream, items) }
    }

    fn count(&self, found: usize) -> Result<()> {
        let expected = self.items.len();
        if found == expected {
            return Ok(());
        }
        let tensors = |count| format!("{count} tensors");
        Err(Error::shape(self.op, self.list, tensors(expected), tensors(found)))
    }

    fn name(&self, index: usize) -> crate::Arg {
        format!("{}[{index}]", self.list).into()
    }

    fn len(&self, index: usize, found: usize) -> Result<()> {
        let Item { name, len, part, .. } = &self.items[index];
        let len = if self.parts.is_some() { part.len() } else { *len };
        if found == len {
            return Ok(());
        }
        let expected = format!("{len} elements (tensor \"{name}\")");
        Err(Error::shape(self.op, self.name(index), expected, found))
    }

    /// Where the tensor's element 0 is or, of a part that is memory of its own, would be (modulo
    /// 2⁶⁴).
    fn origin(&self, index: usize, address: u64) -> Result<u64> {
        let Some(dtype) = self.parts.filter(|_| address != 0) else { return Ok(address) };
        let before = (self.items[index].part.start * dtype.bytes()) as u64;
        match address.wrapping_sub(before) {
            // 0 says that there is no tensor.
            0 => Err(Error::range(self.op, self.name(index), "an address for element 0", address)),
            origin => Ok(origin),
        }
    }

    /// The address of each; 0 for none. Writes nothing on error.
    pub(super) fn gather(&self, list: &mut dyn List, into: &mut Addresses) -> Result<()> {
        self.count(list.len())?;
        for (index, item) in self.items.iter().enumerate() {
            let address = self.address(list, index)?;
            if let Some(row) = item.row {
                into.found[row] = address;
            }
        }
        into.take();
        Ok(())
    }

    fn address(&self, list: &mut dyn List, index: usize) -> Result<u64> {
        if !list.has(index) {
            return Ok(0);
        }
        let memory = list.lend(index, self.stream)?;
        self.len(index, memory.len())?;
        let address = memory.address(self.op, &|| self.name(index), self.stream)?;
        self.origin(index, address.0)
    }
}

/// Memory of one argument: first byte, one past the last, row, whether it is written.
pub(super) type Span = (u64, u64, u32, bool);

/// O-05: no written tensor shares memory with any other. `spans` is room for both lists, reused.
pub(super) fn check_overlap(
    op: &'static str,
    layout: &Layout,
    written: (&str, &[u64], Dtype),
    read: (&str, &[u64], Dtype),
    spans: &mut Vec<Span>,
) -> Result<()> {
    spans.clear();
    for ((_, addresses, dtype), writes) in [(written, true), (read, false)] {
        for (row, (&origin, tensor)) in addresses.iter().zip(&layout.tensors).enumerate() {
            if origin != 0 {
                // Only the part is read or written.
                let part = &layout.items[tensor.id as usize].part;
                let address = origin.wrapping_add((part.start * dtype.bytes()) as u64);
                let bytes = (part.len() * dtype.bytes()) as u64;
                spans.push((address, address.saturating_add(bytes), row as u32, writes));
            }
        }
    }
    spans.sort_unstable();
    // In order of first bytes, a span overlaps an earlier one if it overlaps the one that reaches
    // furthest; kept apart for written and for all spans.
    let mut furthest: Option<Span> = None;
    let mut furthest_written: Option<Span> = None;
    for &span in spans.iter() {
        let before = if span.3 { furthest } else { furthest_written };
        if let Some(other) = before.filter(|other| other.1 > span.0) {
            let name = |span: Span| {
                let list = if span.3 { written.0 } else { read.0 };
                crate::Arg::from(format!("{list}[{}]", layout.tensors[span.2 as usize].id))
            };
            let (first, second) = if span.3 { (span, other) } else { (other, span) };
            return Err(Error::Overlap { op, first: name(first), second: name(second) });
        }
        let further = |old: Option<Span>| old.filter(|old| old.1 >= span.1).or(Some(span));
        furthest = further(furthest);
        if span.3 {
            furthest_written = further(furthest_written);
        }
    }
    Ok(())
}
