//! Findings of the [doctor](crate::doctor): what each code means, how it comes about, and what its repair does.
//!
//! A repair is offered only for what this installation owns. Where no repair is offered, the finding says why and what
//! a person can do.
