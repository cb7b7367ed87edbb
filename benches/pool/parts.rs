pub(crate) mod bouncer;
pub(crate) mod hosts;
pub(crate) mod load;
pub(crate) mod peers;
