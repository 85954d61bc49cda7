//! gatewayctl: installs, restarts and explains a gateway.
fn main() {}
