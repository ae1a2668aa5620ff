//! The crate's reduction kernels as clang 15 and clang 19 compile them for gfx90a.

mod common;

use common::gfx::{COMPILERS, compile};
use common::{Device, reduce, root};

fn each(test: fn(&mut Device)) {
    let includes = reduce::includes("hip");
    let flags: Vec<&str> = includes.iter().map(String::as_str).collect();
    for compiler in COMPILERS {
        let source = root().join("ci/vgpu/tests/kernels/reduce.hip");
        let Some(object) = compile(compiler, &source, &flags) else { continue };
        println!("{compiler}");
        test(&mut Device::gfx(&object));
    }
}

#[test]
fn pack_is_its_definition() {
    each(reduce::pack_is_its_definition);
}

#[test]
fn accumulate_is_its_definition() {
    each(reduce::accumulate_is_its_definition);
}

#[test]
fn sum_is_its_definition() {
    each(reduce::sum_is_its_definition);
}

#[test]
fn quantize_is_its_definition() {
    each(reduce::int8::quantize_is_its_definition);
}

#[test]
fn blocks_of_integers_are_added_up_and_unpacked() {
    each(reduce::int8::sum_and_unpack);
}

#[test]
fn unpack_is_its_definition() {
    each(reduce::unpack_is_its_definition);
}
