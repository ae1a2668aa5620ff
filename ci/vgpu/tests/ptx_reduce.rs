//! The crate's reduction kernels as nvcc compiles them.

mod common;

use common::{Device, compile, reduce, root};

fn device() -> Option<Device> {
    let includes = reduce::includes("cuda");
    let flags: Vec<&str> = includes.iter().map(String::as_str).collect();
    let ptx = compile(&root().join("ci/vgpu/tests/kernels/reduce.cu"), &flags)?;
    Some(Device::new(&ptx))
}

#[test]
fn pack_is_its_definition() {
    let Some(mut device) = device() else { return };
    reduce::pack_is_its_definition(&mut device);
}

#[test]
fn accumulate_is_its_definition() {
    let Some(mut device) = device() else { return };
    reduce::accumulate_is_its_definition(&mut device);
}

#[test]
fn sum_is_its_definition() {
    let Some(mut device) = device() else { return };
    reduce::sum_is_its_definition(&mut device);
}

#[test]
fn quantize_is_its_definition() {
    let Some(mut device) = device() else { return };
    reduce::int8::quantize_is_its_definition(&mut device);
}

#[test]
fn blocks_of_integers_are_added_up_and_unpacked() {
    let Some(mut device) = device() else { return };
    reduce::int8::sum_and_unpack(&mut device);
}

#[test]
fn unpack_is_its_definition() {
    let Some(mut device) = device() else { return };
    reduce::unpack_is_its_definition(&mut device);
}
