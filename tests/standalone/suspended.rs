//! A suspended gateway: every command says so at once, and what continues it.

use std::process::Output;
use std::thread::JoinHandle;

use gateway::internals::Stat;
use nix::sys::signal::Signal;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::{servers, wait};

fn suspend(gateway: &Gateway) {
    gateway.signal(Signal::SIGSTOP);
    wait::until("it is suspended", || {
        Stat::read(gateway.pid()).filter(|stat| stat.state == 'T')
    });
}

fn names_it(command: &str, output: &Output, pid: u32) {
    let text = said(output);
    let suspended = text.contains(&format!("pid {pid} is suspended"));
    let listed = text.contains("suspended") && text.contains(&format!("pid {pid}"));
    assert!(
        suspended || command == "list" && listed,
        "{command}: {text}"
    );
    let resumes = text.contains(&format!("kill -CONT {pid}"));
    assert!(
        resumes || ["list", "logs"].contains(&command),
        "{command}: {text}"
    );
    let fails = !["list", "logs"].contains(&command);
    assert_eq!(output.status.success(), !fails, "{command}: {text}");
}

#[test]
fn every_command_says_that_a_gateway_is_suspended_and_a_stop_does_not_hang() {
    let mut gateway = Setup::new().start();
    let pid = gateway.pid();
    suspend(&gateway);
    let commands = [
        "stop", "status", "restart", "reload", "recover", "doctor", "list", "logs",
    ];
    std::thread::scope(|scope| {
        let gateway = &gateway;
        let asked: Vec<_> = commands
            .map(|command| (command, scope.spawn(move || gateway.ctl([command]))))
            .into();
        for (command, output) in asked {
            names_it(command, &output.join().unwrap(), pid);
        }
    });
    let waited = gateway.ctl(["wait", "--timeout", "6s"]);
    let text = said(&waited);
    assert!(text.contains(&format!("pid {pid} is suspended")), "{text}");
    gateway.signal(Signal::SIGCONT);
    let output = gateway.ctl(["stop"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(gateway.exit_code(wait::DEADLINE), 0);
}

#[test]
fn a_stop_notices_that_its_gateway_is_suspended_while_it_finishes_its_work() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    let target = gateway.target();
    let slow: JoinHandle<_> =
        std::thread::spawn(move || block_on(client::get(&target, "/slow?ms=60000")));
    gateway.wait_status("it is under way", |status| status["requests"] == 1);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| gateway.ctl(["stop"]));
        gateway.wait_line("stop asked by");
        suspend(&gateway);
        names_it("stop", &stop.join().unwrap(), gateway.pid());
    });
    gateway.kill();
    assert!(slow.join().unwrap().is_err());
}
