//! What a step of the reducer launches and uploads on a GPU, counted by the virtual one. A suite of its own:
//! the counts are the process's.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::reduction::params_from;
use common::vgpu::Door;
use common::{devices, ranks};
use halfstep::reduce::{BucketPlan, Config, Reducer, Unscale};
use halfstep::{Device, Dtype, Write};

/// One is empty.
const LENGTHS: [usize; 9] = [1, 7, 16_390, 0, 2049, 9, 255, 31, 32];

/// Of one step: packs, unpacks, and copies to the device.
type Counts = [u64; 3];

/// Three steps of a rank that is alone, so that nothing but packing and unpacking is left. In the second
/// one all views are accumulated before; in the third all but the last of its bucket.
fn steps(device: &Device, door: &Door, plan: &BucketPlan, views: bool) -> Vec<Counts> {
    let upload = match door.vendor {
        "cuda" => "cuMemcpyHtoDAsync_v2",
        _ => "hipMemcpyHtoDAsync",
    };
    let mut steps = ranks::run(1, |comm| {
        let stream = device.stream().unwrap();
        let config = Config { views, accumulate: true, ..Config::default() };
        let mut reducer =
            Reducer::<f32>::new(device, plan.clone(), Box::new(comm), config).unwrap();
        let mut own = LENGTHS.map(|len| device.upload(&vec![1.0f32; len]).unwrap());
        let mut counts = Vec::new();
        for step in 0..3 {
            stream.sync().unwrap();
            door.launches();
            let before = door.calls(upload);
            for param in (0..LENGTHS.len()).rev() {
                if views && (step == 1 || step == 2 && param != 0) {
                    reducer.accumulate_view(&stream, param).unwrap();
                }
                match views {
                    true => reducer.ready_view(&stream, param).unwrap(),
                    false => reducer.ready(&stream, param, &own[param]).unwrap(),
                }
            }
            match views {
                true => reducer.finish_views(&stream, Unscale::Keep).unwrap(),
                false => {
                    let out = own.iter_mut().map(|own| own as &mut dyn Write<f32>);
                    reducer.finish(&stream, &mut out.collect::<Vec<_>>(), Unscale::Keep).unwrap()
                }
            };
            stream.sync().unwrap();
            let launches = door.launches();
            let of = |name| launches.iter().filter(|l| l.kernel.contains(name)).count() as u64;
            let uploads = door.calls(upload) - before;
            counts.push([of("reduce_pack"), of("reduce_unpack"), uploads]);
        }
        counts
    });
    steps.swap_remove(0)
}

/// A launch unpacks a whole bucket, whatever its parameters, and packs one of views; a gradient of the
/// caller's, which may be overwritten at once, costs a launch. Addresses go up with the first step only.
#[test]
fn buckets_are_packed_and_unpacked_at_once() {
    for device in &devices() {
        let Some(door) = Door::of(device) else { continue };
        let plan = BucketPlan::ddp(&params_from(&LENGTHS), Dtype::Bf16, 100, 9000).unwrap();
        let buckets = plan.buckets().len() as u64;
        let gradients = LENGTHS.iter().filter(|&&len| len > 0).count() as u64;
        assert!(buckets > 1 && buckets < gradients, "{buckets} buckets");
        for views in [false, true] {
            let found = steps(device, &door, &plan, views);
            println!("{}, views: {views}, {buckets} buckets: {found:?}", device.info());
            let packs = if views { [buckets, buckets, buckets + 1] } else { [gradients; 3] };
            assert_eq!([found[0][0], found[1][0], found[2][0]], packs);
            assert_eq!([found[0][1], found[1][1], found[2][1]], [buckets; 3]);
            assert_eq!([found[1][2], found[2][2]], [found[0][2] - 1; 2], "uploads");
        }
    }
}
