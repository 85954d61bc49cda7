//! Restarts under a load that never waits, beside the same load left alone for the same time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::gateway::{Gateway, Setup};
use super::support::load::Load;
use super::support::report::{Part, Report};
use super::support::{servers, wait};
use super::{Size, middle_and_most, tenths};

/// Between two restarts: the load settles.
const PAUSE: Duration = Duration::from_millis(300);

fn load(gateway: &Gateway) -> Load {
    Load {
        new_per_second: 200.0,
        kept: 50,
        websockets: 10,
        ..Load::on(gateway.target())
    }
}

/// In this process, the next generation beside the old one.
pub fn in_process(size: Size) -> Value {
    measure(size, "in-process")
}

/// In a fresh process, which takes listeners and clients over.
pub fn respawn(size: Size) -> Value {
    measure(size, "respawn")
}

fn measure(size: Size, mode: &str) -> Value {
    let gateway = Setup::behind(servers::node())
        .config(format!("[restart]\nmode = \"{mode}\"\n"))
        .start();
    // Both runs find everything warm.
    let warm = load(&gateway).start();
    warm.flows(Part::New, 200);
    drop(warm);
    let running = load(&gateway).start();
    running.flows(Part::New, 100);
    let began = Instant::now();
    let (mut commands, mut switches) = (Vec::new(), Vec::new());
    for _ in 0..size.restarts {
        let asked = Instant::now();
        gateway.restart();
        commands.push(asked.elapsed().as_secs_f64() * 1000.0);
        switches.push(
            gateway.status()["lastRestart"]["tookMs"]
                .as_f64()
                .unwrap_or(f64::NAN),
        );
        wait::pause(PAUSE);
    }
    let length = began.elapsed();
    let disturbed = running.stop();
    let running = load(&gateway).start();
    running.flows(Part::New, 100);
    wait::pause(length);
    let undisturbed = running.stop();
    let (command, slowest_command) = middle_and_most(&mut commands);
    let (switch, slowest_switch) = middle_and_most(&mut switches);
    let ms = |length: Duration| length.as_secs_f64() * 1000.0;
    let p99 = |report: &Report| ms(report.quantile(0.99));
    json!({
        "restarts": size.restarts,
        "until all new requests go to the new one, p50 ms": tenths(switch),
        "until all new requests go to the new one, max ms": tenths(slowest_switch),
        "gatewayctl restart, whole command, p50 ms": tenths(command),
        "gatewayctl restart, whole command, max ms": tenths(slowest_command),
        "requests": disturbed.latency.len(),
        "failed": disturbed.failures(),
        "longest gap, restarts, ms": tenths(ms(disturbed.longest_gap)),
        "longest gap, undisturbed, ms": tenths(ms(undisturbed.longest_gap)),
        "longest gap, difference, ms": tenths(ms(disturbed.longest_gap) - ms(undisturbed.longest_gap)),
        "p50 restarts / undisturbed, ms": format!("{:.1} / {:.1}", ms(disturbed.quantile(0.5)), ms(undisturbed.quantile(0.5))),
        "p99 restarts, ms": tenths(p99(&disturbed)),
        "p99 undisturbed, ms": tenths(p99(&undisturbed)),
        "p99 added, ms": tenths(p99(&disturbed) - p99(&undisturbed)),
        "max restarts / undisturbed, ms": format!("{:.1} / {:.1}", ms(disturbed.quantile(1.0)), ms(undisturbed.quantile(1.0))),
    })
}
