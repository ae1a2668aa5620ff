//! Mutants of gfx90a code: one instruction's words changed. Fields are where AMD's "Instinct MI200"
//! instruction set reference has them.

use halfstep_vgpu::gfx::CodeObject;

use crate::mutant::{Change, Mutant, flip};
use crate::random::Random;
use crate::slice::{self, Flow};

const NOP: u32 = 0xbf80_0000;

/// All mutants of a kernel, given its instructions' places and texts.
pub fn mutants(object: &CodeObject, code: &[(u64, String)]) -> Vec<Mutant> {
    let mut list = Vec::new();
    let flows: Vec<Flow> = code.iter().map(|(_, text)| flow(text)).collect();
    let addresses = slice::addresses(&flows);
    for ((at, text), address) in code.iter().zip(addresses) {
        let (Some(first), second) = (object.word(*at), object.word(at + 4).unwrap_or(0)) else {
            continue;
        };
        let mut random = Random::of(text, *at);
        let name = text.split_whitespace().next().unwrap_or_default();
        for (operator, words) in changes(name, [first, second], &mut random) {
            if operator == "flip" && !address {
                continue;
            }
            let words = words.iter().enumerate().map(|(i, w)| (at + 4 * i as u64, *w)).collect();
            let place = text.clone();
            list.push(Mutant { operator, place, change: Change::Words(words) });
        }
    }
    list
}

/// Registers of an operand, one by one.
fn registers(operand: &str) -> Vec<String> {
    let operand = operand.trim().trim_matches(['-', '|']);
    let (kind, rest) = operand.split_at(operand.len().min(1));
    if !matches!(kind, "v" | "s") {
        return if operand.starts_with("vcc") { vec!["vcc".into()] } else { Vec::new() };
    }
    let range = rest.split_whitespace().next().unwrap_or_default().trim_matches(['[', ']']);
    let (first, last) = range.split_once(':').unwrap_or((range, range));
    match (first.parse::<u32>(), last.parse::<u32>()) {
        (Ok(first), Ok(last)) => (first..=last).map(|n| format!("{kind}{n}")).collect(),
        _ if operand.starts_with("vcc") => vec!["vcc".into()],
        _ => Vec::new(),
    }
}

/// What an instruction does with registers.
fn flow(text: &str) -> Flow {
    let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
    let operands: Vec<Vec<String>> = operands.split(',').map(registers).collect();
    let of = |i: usize| operands.get(i).cloned().unwrap_or_default();
    let rest = |from: usize| operands.iter().skip(from).flatten().cloned().collect();
    let memory = ["global_", "flat_", "ds_", "buffer_", "s_load", "s_buffer_load"];
    if memory.iter().any(|m| name.starts_with(m)) {
        let loads = name.contains("load") || name.contains("read");
        let (first, data) = if loads { (1, of(0)) } else { (0, Vec::new()) };
        // Loads: result, address, base. Stores: address, data, base.
        let mut addresses = of(first);
        addresses.extend(of(2));
        return Flow { writes: data, reads: Vec::new(), addresses, arithmetic: false };
    }
    let integers = ["u16", "u32", "i32", "b32", "u64", "i64", "b64", "u24"];
    let arithmetic = (name.starts_with("v_") || name.starts_with("s_"))
        && integers.iter().any(|ty| name.contains(ty))
        && !name.contains("cmp");
    Flow { writes: of(0), reads: rest(1), addresses: Vec::new(), arithmetic }
}

/// A field of a word, and the word with another value in it.
fn field(word: u32, low: u32, count: u32) -> u32 {
    word >> low & ((1 << count) - 1)
}

fn put(word: u32, low: u32, count: u32, value: u32) -> u32 {
    let mask = ((1 << count) - 1) << low;
    word & !mask | value << low & mask
}

fn exchange(word: u32, a: u32, b: u32, count: u32) -> Option<u32> {
    let (x, y) = (field(word, a, count), field(word, b, count));
    (x != y).then(|| put(put(word, a, count, y), b, count, x))
}

/// What an instruction can become: its first word, or its first two.
fn changes(
    name: &str,
    [first, second]: [u32; 2],
    random: &mut Random,
) -> Vec<(&'static str, Vec<u32>)> {
    let mut out = Vec::new();
    match first >> 26 {
        _ if first >> 31 == 0 => vop(name, first, second, random, &mut out),
        0b11_0100 => vop3(name, first, second, random, &mut out),
        0b11_0110 => ds(name, first, &mut out),
        0b11_0111 => flat(name, first, random, &mut out),
        0b11_0000 => {
            let offset = field(second, 0, 21);
            out.push(("offset", vec![first, put(second, 0, 21, offset + 4)]));
        }
        0b11_1000 if name.starts_with("buffer_wbinvl1") => out.push(("drop-fence", vec![NOP, NOP])),
        0b11_1000 => out.push(("offset", vec![put(first, 0, 12, field(first, 0, 12) + 4)])),
        _ if first >> 30 == 0b10 => scalar(name, first, second, random, &mut out),
        _ => {}
    }
    out
}

type Out = Vec<(&'static str, Vec<u32>)>;

fn scalar(name: &str, first: u32, second: u32, random: &mut Random, out: &mut Out) {
    match name {
        "s_barrier" => out.push(("drop-barrier", vec![NOP])),
        "s_waitcnt" => {
            out.push(("drop-wait", vec![NOP]));
            let vm = field(first, 0, 4) | field(first, 14, 2) << 4;
            let lgkm = field(first, 8, 4);
            if vm < 63 {
                let word = put(put(first, 0, 4, (vm + 1) & 15), 14, 2, (vm + 1) >> 4);
                out.push(("widen-wait", vec![word]));
            }
            if lgkm < 15 {
                out.push(("widen-wait", vec![put(first, 8, 4, lgkm + 1)]));
            }
        }
        // Not those on exec: they jump over what no lane would do.
        "s_cbranch_scc0" | "s_cbranch_scc1" | "s_cbranch_vccz" | "s_cbranch_vccnz" => {
            out.push(("negate", vec![first ^ 1 << 16]));
        }
        _ => {}
    }
    // Two sources of eight bits each: SOP2, not the formats that share its prefix.
    if first >> 23 >= 0b1_0110_0000 {
        return;
    }
    let differ = ["s_sub", "s_lshl_b", "s_lshr", "s_ashr", "s_bfe", "s_cselect", "s_andn2"];
    if differ.iter().any(|n| name.starts_with(n)) {
        out.extend(exchange(first, 0, 8, 8).map(|word| ("swap", vec![word])));
    }
    let counted = ["s_add", "s_sub", "s_lsh", "s_and_b", "s_mul", "s_bfe"];
    if counted.iter().any(|n| name.starts_with(n)) {
        for low in [0, 8] {
            out.extend(
                constant([first, second], (low, 8), name.starts_with("s_and"), random)
                    .map(|words| ("flip", words)),
            );
        }
    }
}

/// A small constant or a literal in a source field, with one bit changed.
fn constant(
    [first, second]: [u32; 2],
    (low, count): (u32, u32),
    mask: bool,
    random: &mut Random,
) -> Option<Vec<u32>> {
    match field(first, low, count) {
        n @ 128..=192 => {
            let other = (n - 128) ^ 1 << random.below(5);
            Some(vec![put(first, low, count, 128 + other.min(64))])
        }
        // A half taken out of a word, not a part of an address.
        255 if mask && second == 0xffff => None,
        255 => Some(vec![first, flip(second.into(), false, mask, random) as u32]),
        _ => None,
    }
}

/// Vector instructions whose operands cannot be exchanged without a difference.
fn ordered(name: &str) -> bool {
    let shifts = ["lshl", "lshr", "ashr"].iter().any(|s| name.contains(s));
    let compares =
        name.starts_with("v_cmp") && ["lt", "gt", "le", "ge"].iter().any(|c| name.contains(c));
    shifts || compares || name.contains("_sub") || name.starts_with("v_cndmask")
}

fn integer(name: &str) -> bool {
    [
        "v_add_u32",
        "v_add_co",
        "v_lshl",
        "v_lshr",
        "v_ashr",
        "v_and_b32",
        "v_mul_u32",
        "v_mad_u",
        "v_bfe",
    ]
    .iter()
    .any(|n| name.starts_with(n))
}

/// The opposite comparison's opcode: sixteen of floats, eight of integers.
fn opposite(name: &str, opcode: u32) -> u32 {
    if name.contains("_f16") || name.contains("_f32") || name.contains("_f64") {
        opcode ^ 15
    } else {
        opcode ^ 7
    }
}

/// VOP1, VOP2 and VOPC.
fn vop(name: &str, first: u32, second: u32, random: &mut Random, out: &mut Out) {
    // SDWA and DPP have their first source elsewhere.
    if matches!(field(first, 0, 9), 249 | 250) {
        return;
    }
    let compares = field(first, 25, 6) == 0b11_1110;
    if compares && !name.contains("class") {
        let opcode = field(first, 17, 8);
        out.push(("negate", vec![put(first, 17, 8, opposite(name, opcode))]));
    }
    let two = field(first, 25, 6) < 0b11_1111;
    if two && ordered(name) && field(first, 8, 1) == 1 {
        out.extend(exchange(first, 0, 9, 8).map(|word| ("swap", vec![word])));
    }
    if two && integer(name) {
        out.extend(
            constant([first, second], (0, 9), name.starts_with("v_and"), random)
                .map(|words| ("flip", words)),
        );
    }
}

/// VOP3 and VOP3P: three sources of nine bits in the second word.
fn vop3(name: &str, first: u32, second: u32, random: &mut Random, out: &mut Out) {
    let both = |word: Option<u32>| word.map(|word| ("swap", vec![first, word]));
    if name.starts_with("v_mfma") {
        return out.extend(both(exchange(second, 0, 9, 9)));
    }
    if name.starts_with("v_add_lshl")
        || name.starts_with("v_fma")
        || name.starts_with("v_pk_fma")
        || name.starts_with("v_mad")
    {
        out.extend(both(exchange(second, 9, 18, 9)));
    } else if ordered(name) || name.starts_with("v_perm") {
        out.extend(both(exchange(second, 0, 9, 9)));
    }
    if name.starts_with("v_cmp") && !name.contains("class") {
        let opcode = field(first, 16, 10);
        out.push(("negate", vec![put(first, 16, 10, opposite(name, opcode)), second]));
    }
    if integer(name) {
        for low in [0, 9, 18] {
            if let n @ 128..=192 = field(second, low, 9) {
                let other = ((n - 128) ^ 1 << random.below(5)).min(64);
                out.push(("flip", vec![first, put(second, low, 9, 128 + other)]));
            }
        }
    }
}

fn ds(name: &str, first: u32, out: &mut Out) {
    let two = name.contains("read2") || name.contains("write2");
    let word = match two {
        true => put(first, 0, 8, field(first, 0, 8) + 1),
        false => put(first, 0, 16, field(first, 0, 16) + 4),
    };
    out.push(("offset", vec![word]));
    // ds_add_u32 as ds_write_b32.
    if name == "ds_add_u32" {
        out.push(("plain-atomic", vec![put(first, 17, 8, 13)]));
    }
}

fn flat(name: &str, first: u32, random: &mut Random, out: &mut Out) {
    let by = if random.below(2) == 0 { 4 } else { 16 };
    out.push(("offset", vec![put(first, 0, 13, field(first, 0, 13) + by)]));
    // A sum as a store of what is added: dwords and pairs of them.
    match name {
        "global_atomic_add" => out.push(("plain-atomic", vec![put(first, 18, 7, 0x1c)])),
        "global_atomic_add_x2" => out.push(("plain-atomic", vec![put(first, 18, 7, 0x1d)])),
        _ => {}
    }
}
