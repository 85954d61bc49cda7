//! Facts in, findings out: what is wrong with an installed gateway, and why the last run ended.

pub mod doctor;
pub mod history_row;
pub mod why;
