// INTEROP_PROTOS is the folder of riskd's protos.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-env-changed=INTEROP_PROTOS");
    let root = std::env::var("INTEROP_PROTOS")?;
    let file = format!("{root}/riskd/v1/order_risk_service.proto");
    println!("cargo:rerun-if-changed={root}");
    tonic_prost_build::configure()
        .build_server(false)
        .compile_protos(&[file], &[root])?;
    Ok(())
}
