//! Generations, their lifecycle and the loop that drives it.
//!
//! [`lifecycle`] decides and does nothing; [`run_loop`] knows every component, brings to the machine
//! what happens and performs what it says. A component owns its state and knows no other; what takes
//! time runs in a task and comes back as a [`loop_event::LoopEvent`].
//!
//! # Files
//!
//! | | |
//! |---|---|
//! | begin | [`start`] puts a process together: [`claim`] ([`ownership`], [`standby`]), [`config_source`], [`listeners`], [`address_wait`] |
//! | decide | [`lifecycle`], [`strategy`], [`budget`], [`recovery`]: pure |
//! | loop | [`run_loop`] with `calls`, `events`, `perform`, `passages`, `relapse`, `handover`, `ending`, `status` |
//! | components | [`pending_requests`], [`supervision`], [`front_door`], [`building`], [`generations`], [`relapse`], [`recovery::driver`], [`handover::successor_side`], [`handover::predecessor_side`], [`lease`], [`control_end`], [`traces`], [`watchdog`] |
//! | a generation | [`generation`], [`slot`] (a sidecar and its door), [`context`] |
//! | passages | [`passage`] makes those of a generation that takes over, [`passage_wait`] has answers wait for them |
//! | drains | [`drain`]: of an older generation, after a hand-over, before an exit, at a shutdown |
//! | records | [`record`], [`alert`], [`progress`] |
//!
//! # One restart, in this process
//!
//! A call comes from the control socket to [`run_loop`]. `run_loop/calls.rs` asks [`supervision`],
//! and that [`strategy`], where the next generation is to live, keeps the request in
//! [`pending_requests`], and brings it to [`lifecycle`], which says `Build`. `run_loop/perform.rs`
//! reads the configuration ([`config_source`]) and starts a build ([`building`]) in a task, where
//! [`generation`] starts each sidecar in a [`slot`] and waits until it is ready. The result comes to
//! `run_loop/events.rs`; [`lifecycle`] says `Serve` and `Answer`, and `run_loop/perform.rs` sends new
//! requests to it ([`front_door`]), lets the one before drain ([`generations`],
//! [`drain::old_generation`]), and has [`pending_requests`] answer.
//!
//! # One restart, in a successor
//!
//! As above, but [`lifecycle`] says `HandOver`, and `run_loop/handover.rs` has
//! [`handover::successor_side`] write an [offer](handover::offer) and start a process with it. That
//! one begins in [`start`], takes the offer in [`claim`], and builds as above; its
//! [`handover::predecessor_side`] speaks to our [`handover::successor_side`]. When it is ready it is
//! given the service, and serves; then this process drains ([`drain::after_handover`]) and ends.

mod address_wait;
pub mod alert;
pub mod budget;
mod building;
pub mod changed;
mod claim;
mod clients_watch;
mod config_source;
mod context;
mod control_end;
mod drain;
mod event_feed;
mod fdstore_clients;
mod front_door;
mod generation;
mod generations;
mod handover;
mod hang_up;
mod lease;
pub mod lifecycle;
mod listeners;
mod loop_event;
mod obituary;
mod option_future;
mod outbox;
mod ownership;
mod passage;
mod passage_wait;
mod pending_requests;
mod progress;
mod prove;
pub mod record;
pub mod recovery;
mod relapse;
mod run_loop;
mod signals;
mod slot;
mod standby;
mod start;
pub mod strategy;
mod supervision;
mod tokens;
mod traces;
mod watchdog;

pub use prove::prove;
pub use signals::{hold as hold_signals, release as release_signals};
pub use start::run;
