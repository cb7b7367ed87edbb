//! The servers that the tests run on: what they take, and that nothing of them stays.
//!
//! In a binary of its own because it kills processes.

#![cfg(test)]

mod child;
mod choice;
mod gone;
mod kinds;
mod proxy;
mod tls;
