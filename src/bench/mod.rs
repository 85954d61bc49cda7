//! The ruler: measures what a restart does to the clients of a server, and to the machine.
//!
//! A **sample** is one life of the server under measure ([`measured`]): of a gateway in a home of its own
//! ([`home`]), or of any other server ([`subject`], [`target`]), from its
//! start ([`sample`]) over some restarts ([`iteration`]) to its end. During a restart two probes ask
//! every 25 ms whether it is alive and ready ([`probe`]), its output is read for the lines that say
//! where the time went ([`log_lines`]), and what its processes hold is counted ([`resources`]). What
//! did not come in time has a code ([`failure`]). [`payload`] is the answer, [`stats`] the numbers in it.
//!
//! An iteration ends when the gateway has said that it is ready and both probes have a good answer to
//! a request that was sent afterwards. The first good answer after a bad one ends nothing: one slow
//! probe would hide an outage of seconds that follows it. Clients at a constant rate see all of it ([`load`],
//! [`load_report`]).

pub mod case;
pub mod failure;
pub mod home;
pub mod http;
pub mod iteration;
pub mod load;
pub mod load_report;
pub mod log_lines;
pub mod measured;
pub mod payload;
pub mod probe;
pub mod resources;
pub mod sample;
pub mod server;
pub mod stats;
pub mod subject;
pub mod target;
