# shellcheck shell=bash disable=SC2034 # it is used by who sources this
# The suites that run on a device, those that take long first: on the virtual GPU (ci/run), and where there is a real one
# (ci/gpu-node.sh). To be sourced.
device_suites=(optim_devices device gemm gemm_backward gemm_bound gemm_exact gemm_many gemm_weight_grad gemm_empty gemm_statistics
    gemm_special gemm_rotation gemm_through_bf16 optim optim_numerics optim_skip scaler state golden reduce_devices
    reduce_sums sharded_devices reduce_launches reduce_int8 reduce_staged reduce_nodes gpu_bytes gpu_cudarc gpu_driver
    gpu_failures gpu_images gpu_library gpu_order gpu_products gpu_rows gpu_step gpu_streams)
