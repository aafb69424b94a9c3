//! The kill loop: a driver that starts a program, kills it with SIGKILL at moments drawn from a seed, and at the end
//! compares what Selvedge says with a record that stands outside it.

pub mod audit;
pub mod backup;
pub mod bank;
pub mod driver;
pub mod life;
pub mod program;
pub mod record;
pub mod seed;
pub mod transfer;
pub mod work;
