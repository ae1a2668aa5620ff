//! State files that are damaged or make no sense: all are refused, and nothing changes.
#![cfg(feature = "safetensors")]
#![allow(missing_docs)]

mod common;

use std::fs;

use common::files::*;

#[test]
fn p04_any_flipped_bit_is_found() {
    let folder = Folder::new("flip");
    let (stream, mut optimizer, bytes, _) = small(&folder);
    let path = folder.0.join("flipped");
    for byte in 0..bytes.len() {
        // Every bit of the header and of a part of the data; one bit of each other byte.
        let bits = if byte < bytes.len() - 1000 || byte % 16 == 0 { 0..8 } else { 3..4 };
        for bit in bits {
            let mut flipped = bytes.clone();
            flipped[byte] ^= 1 << bit;
            refused(&mut optimizer, &stream, &path, &flipped, &format!("bit {bit} of byte {byte}"));
        }
    }
    fs::write(&path, &bytes).unwrap();
    optimizer.load(&stream, &path).unwrap();
}

#[test]
fn p05_truncated_and_extended_files_are_refused() {
    let folder = Folder::new("truncate");
    let (stream, mut optimizer, bytes, _) = small(&folder);
    let path = folder.0.join("cut");
    for len in (0..bytes.len()).step_by(7).chain([1, 7, 8, 9, bytes.len() - 1]) {
        refused(&mut optimizer, &stream, &path, &bytes[..len], &format!("{len} bytes"));
    }
    let mut long = bytes.clone();
    long.push(0);
    refused(&mut optimizer, &stream, &path, &long, "a byte more");
}

/// P-06: no memory is asked for that the file does not have.
#[test]
fn p06_lengths_beyond_the_file_are_refused() {
    let folder = Folder::new("length");
    let (stream, mut optimizer, bytes, _) = small(&folder);
    let path = folder.0.join("long");
    for length in [0u64, 1, bytes.len() as u64, 1 << 32, 1 << 63, u64::MAX] {
        let mut file = bytes.clone();
        file[..8].copy_from_slice(&length.to_le_bytes());
        refused(&mut optimizer, &stream, &path, &file, &format!("length {length}"));
    }
}

/// A file with another header and a right checksum: what a fault in a writer would make.
fn with_header(bytes: &[u8], change: impl Fn(String) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let changed = change(header.trim_end().to_string());
    assert_ne!(changed, header.trim_end());
    let mut file = vec![0; 8];
    file.extend_from_slice(changed.as_bytes());
    file.resize(file.len().next_multiple_of(8), b' ');
    let length = file.len() as u64 - 8;
    file[..8].copy_from_slice(&length.to_le_bytes());
    let mark = b"\"header_hash\":\"";
    let at = file.windows(mark.len()).position(|window| window == mark).unwrap() + mark.len();
    file[at..at + 16].fill(b'0');
    let hash = format!("{:016x}", xxh64(&file));
    file[at..at + 16].copy_from_slice(hash.as_bytes());
    file.extend_from_slice(&bytes[bytes.len() - 4 * 2 * 130..]);
    file
}

/// XXH64, naively.
fn xxh64(bytes: &[u8]) -> u64 {
    const P: [u64; 5] = [
        0x9e3779b185ebca87,
        0xc2b2ae3d27d4eb4f,
        0x165667b19e3779f9,
        0x85ebca77c2b2ae63,
        0x27d4eb2f165667c5,
    ];
    let round = |lane: u64, word: u64| {
        lane.wrapping_add(word.wrapping_mul(P[1])).rotate_left(31).wrapping_mul(P[0])
    };
    assert!(bytes.len() >= 32 && bytes.len().is_multiple_of(8));
    let mut lanes = [P[0].wrapping_add(P[1]), P[1], 0, 0u64.wrapping_sub(P[0])];
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let stripes = words.len() / 4 * 4;
    for (i, &word) in words[..stripes].iter().enumerate() {
        lanes[i % 4] = round(lanes[i % 4], word);
    }
    let turned = [1, 7, 12, 18].iter().zip(lanes).map(|(&turn, lane)| lane.rotate_left(turn));
    let mut hash = turned.fold(0u64, |sum, lane| sum.wrapping_add(lane));
    for lane in lanes {
        hash = (hash ^ round(0, lane)).wrapping_mul(P[0]).wrapping_add(P[3]);
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    for &word in &words[stripes..] {
        hash = (hash ^ round(0, word)).rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P[1]);
    hash = (hash ^ hash >> 29).wrapping_mul(P[2]);
    hash ^ hash >> 32
}

/// P-07, P-08, P-10, O-34: headers that are whole but wrong.
#[test]
fn p07_p08_headers_that_make_no_sense_are_refused() {
    let folder = Folder::new("header");
    let (stream, mut optimizer, bytes, moments) = small(&folder);
    let path = folder.0.join("wrong");
    // The way these files are made is itself right: a harmless change loads.
    let harmless =
        with_header(&bytes, |header| header.replace("\"attempts\\\":1", "\"attempts\\\":7"));
    // So does one that does not say which group tensors are in.
    let older = with_header(&bytes, |header| header.replace("\\\",0]", "\\\"]"));
    for file in [older, harmless] {
        fs::write(&path, file).unwrap();
        optimizer.load(&stream, &path).unwrap();
    }
    assert_eq!(optimizer.moment(&stream, 0, 0).unwrap(), moments);
    let swaps = [
        ("\"shape\":[90]", "\"shape\":[18446744073709551615]"),
        ("\"shape\":[90]", "\"shape\":[4611686018427387904]"),
        ("\"shape\":[90]", "\"shape\":[90,1]"),
        ("\"shape\":[90]", "\"shape\":[-90]"),
        ("\"shape\":[90]", "\"shape\":[89]"),
        ("\"data_offsets\":[0,360]", "\"data_offsets\":[360,0]"),
        ("\"data_offsets\":[0,360]", "\"data_offsets\":[4,364]"),
        ("\"data_offsets\":[360,720]", "\"data_offsets\":[0,360]"),
        ("\"data_offsets\":[360,720]", "\"data_offsets\":[999360,999720]"),
        ("\"dtype\":\"F32\"", "\"dtype\":\"F64\""),
        ("\"dtype\":\"F32\"", "\"dtype\":\"X9\""),
        ("halfstep-optim/1", "halfstep-optim/2"),
        ("\\\"rule\\\":\\\"adamw\\\"", "\\\"rule\\\":\\\"lion\\\""),
        ("\\\"seed\\\":\\\"0000", "\\\"seed\\\":\\\"1000"),
        ("\\\"params\\\":\\\"f32\\\"", "\\\"params\\\":\\\"f16\\\""),
        ("\\\"moments\\\":\\\"F32\\\"", "\\\"moments\\\":\\\"Bf16\\\""),
        ("\\\"applied\\\":1", "\\\"applied\\\":2"),
        ("\\\"applied\\\":1", "\\\"applied\\\":-1"),
        ("\\\"attempts\\\":1", "\\\"attempts\\\":18446744073709551615"),
        ("[\\\"a\\\",90,1,", "[\\\"a\\\",90,18446744073709551615,"),
        ("\\\"scale\\\":\\\"3ff0", "\\\"scale\\\":\\\"7ff8"),
        ("\\\"scale\\\":\\\"3ff0", "\\\"scale\\\":\\\"4000"),
        ("\\\"lr\\\":[\\\"3f", "\\\"lr\\\":[\\\"bf"),
        ("\\\"lr\\\":[\\\"3f", "\\\"lr\\\":[\\\"3g"),
        ("[\\\"a\\\",90,1,\\\"3f", "[\\\"a\\\",90,1,\\\"ff"),
        ("[\\\"a\\\",90,1,", "[\\\"a\\\",90,0,"),
        ("[\\\"a\\\",90,", "[\\\"a\\\",91,"),
        ("[\\\"a\\\",90,", "[\\\"a\\\","),
        ("\"b/exp_avg\"", "\"b/exp_avg_sq\""),
        ("\"b/exp_avg\"", "\"b/else\""),
        ("\"b/exp_avg\"", "\"c/exp_avg\""),
        ("\"hashes\":\"", "\"hashes\":\"00,"),
        ("\"hashes\":\"", "\"hashes\":\"0000000000000000,"),
        ("{\"__metadata__\"", "[{\"__metadata__\""),
    ];
    for (from, to) in swaps {
        let file = with_header(&bytes, |header| header.replacen(from, to, 1));
        refused(&mut optimizer, &stream, &path, &file, to);
    }
    let deep = with_header(&bytes, |header| header.replacen("[90]", &"[".repeat(100_000), 1));
    refused(&mut optimizer, &stream, &path, &deep, "deep nesting");
}
