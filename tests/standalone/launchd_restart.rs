//! `gatewayctl restart --force` of a job of launchd: who is in the way, and what clients see meanwhile. The launchd
//! is the simulator in `tests/launchd-sim`.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::mac::Mac;
use crate::support::site::all_of;
use crate::support::{port, wait};

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", all_of(output)))
}

/// Takes the listeners away from launchd, as in a property list of somebody's own, and has it read that.
fn without_sockets(mac: &Mac) {
    let text = fs::read_to_string(mac.plist()).unwrap();
    let (before, rest) = text.split_once("<key>Sockets</key>").unwrap();
    // Its dictionary has one array.
    let after = rest.split_once("</array>").unwrap().1;
    let after = after.split_once("</dict>").unwrap().1;
    fs::write(mac.plist(), format!("{before}{after}")).unwrap();
    let said = mac.must(&["restart", "--force"]);
    assert!(said.contains("unloading"), "{said}");
}

#[test]
fn a_forced_restart_of_a_job_says_what_clients_saw() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let said = mac.must(&["restart", "--force"]);
    assert!(said.contains("new connections wait meanwhile"), "{said}");
    assert!(said.contains(": restarted, pid "), "{said}");
    let forced = answer(&mac.ctl(&["restart", "--force", "--json"]));
    // It cuts what takes longer than a moment, and refuses nobody.
    let probe = &forced["probe"];
    assert!(probe["sent"].as_u64().unwrap() > 0, "{forced}");
    assert!(
        !probe["failures"].to_string().contains("refused"),
        "{forced}"
    );
    assert_eq!(forced["clean"]["state"], "ours", "{forced}");
    assert_eq!(forced["clean"]["dryRun"], false, "{forced}");
}

#[test]
fn a_restart_of_a_job_without_sockets_names_the_loss_before_and_after() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    without_sockets(&mac);
    let pid = mac.pid("gui");
    let output = mac.ctl(&["restart", "--force", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("plan: ") && said.contains("launchd does not hold the listeners (the property list has no Sockets), so new connections are refused"),
        "{said}"
    );
    let forced = answer(&output);
    assert_ne!(mac.pid("gui"), pid);
    let probe = &forced["probe"];
    assert!(probe["failed"].as_u64().unwrap() > 0, "{forced}");
    assert!(probe["downtimeMs"].as_u64().unwrap() > 0, "{forced}");
    assert!(
        probe["failures"].to_string().contains("refused"),
        "{forced}"
    );
}

/// A load beside it would leave the job without its sockets, and the gateway waiting.
#[test]
fn a_gateway_by_hand_on_the_address_of_a_job_is_asked_to_stop_first() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    mac.must(&["stop"]);
    let mut by_hand = Command::new(env!("CARGO_BIN_EXE_gateway"));
    mac.environment(&mut by_hand);
    by_hand
        .args(["run", "--instance", "gateway"])
        .env(
            "GATEWAY_CONFIG",
            mac.home().join(".config/gateway/gateway.toml"),
        )
        .env(
            "GATEWAY_STATE_DIR",
            mac.home().join(".local/state/gateway/gateway"),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut by_hand = by_hand.spawn().unwrap();
    wait::until("it serves", || mac.serves().then_some(()));
    let forced = mac.ctl(&["restart", "--instance", "gateway", "--force", "--json"]);
    // A test that fails leaves nothing behind.
    if !forced.status.success() {
        by_hand.kill().unwrap();
    }
    let ended = by_hand.wait().unwrap();
    assert!(ended.success(), "it was asked, not killed: {ended}");
    let forced = answer(&forced);
    assert_eq!(forced["ok"], true, "{forced}");
    assert_eq!(
        forced["clean"]["killed"][0]["pid"],
        by_hand.id(),
        "{forced}"
    );
    assert!(mac.pid("gui").is_some() && mac.serves());
}

#[test]
fn a_stranger_on_the_address_of_a_job_is_named_and_the_job_goes_on() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let before = mac.pid("gui");
    let config = mac.home().join(".config/gateway/gateway.toml");
    let text = fs::read_to_string(&config).unwrap();
    let other = port::private();
    let text = text.replace(&mac.port.to_string(), &other.to_string());
    fs::write(&config, text).unwrap();
    let stranger = TcpListener::bind(("127.0.0.1", other)).unwrap();
    let refused = mac.ctl(&["restart", "--force"]);
    let said = all_of(&refused);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(
        said.contains(&format!("pid {}", std::process::id())),
        "{said}"
    );
    assert_eq!(mac.pid("gui"), before, "nothing was begun");
    assert!(mac.serves());
    drop(stranger);

    // Nor is a job loaded that would find its address taken.
    fs::write(
        &config,
        fs::read_to_string(&config)
            .unwrap()
            .replace(&other.to_string(), &mac.port.to_string()),
    )
    .unwrap();
    mac.must(&["stop"]);
    let stranger = TcpListener::bind(("127.0.0.1", mac.port)).unwrap();
    let refused = mac.ctl(&["restart", "--force"]);
    assert_eq!(refused.status.code(), Some(5), "{}", all_of(&refused));
    assert!(mac.print("gui").is_none());
    drop(stranger);
    mac.must(&["restart", "--force"]);
    assert!(mac.serves());
}

#[test]
fn a_restart_that_leaves_a_changed_property_list_unread_says_so() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    assert!(!mac.must(&["restart"]).contains("not applied"));
    let text = fs::read_to_string(mac.plist()).unwrap();
    let edited = text.replace("<integer>30</integer>", "<integer>60</integer>");
    fs::write(mac.plist(), edited).unwrap();
    let said = mac.must(&["restart"]);
    let file = mac.plist().display().to_string();
    assert!(
        said.contains(&format!("not applied: {file} (property list) changed; gatewayctl restart --force has launchd load the job anew")),
        "{said}"
    );
    assert!(mac.must(&["status"]).contains("(property list) changed"));
    let said = mac.must(&["restart", "--force"]);
    assert!(
        said.contains("the job has changed, so it is loaded anew"),
        "{said}"
    );
    assert!(!mac.must(&["restart"]).contains("not applied"));
}
