//! Tenants, domains, directory entries and logins of [`MemoryRegistry`](super::MemoryRegistry). The caller holds the
//! registry's lock, so each function is atomic. Each one checks everything before its first change.
use super::*;

impl State {
    pub(super) fn find(&self, tenant: &TenantRef<'_>) -> Option<&Tenant> {
        let is_not_deleted = |t: &&Tenant| t.status() != TenantStatus::Deleted;
        match tenant {
            TenantRef::Id(id) => self.tenants.get(id),
            TenantRef::Slug(text) => self.tenants.values().filter(is_not_deleted).find(|t| t.slug().as_str() == text),
            TenantRef::Domain(text) => {
                let owner = self.domains.get(&text.parse().ok()?)?;
                self.tenants.get(owner).filter(is_not_deleted)
            }
        }
    }

    /// Fails if the tenant does not exist or is deleted, because nothing may be added to it then.
    fn require_not_deleted(&self, tenant: TenantId) -> Result<(), StoreError> {
        let found = self.tenants.get(&tenant).filter(|t| t.status() != TenantStatus::Deleted);
        found.map(drop).ok_or_else(rules::no_tenant)
    }

    fn require_free_slug(&self, tenant: &Tenant) -> Result<(), StoreError> {
        match self.find(&tenant.slug().into()) {
            Some(owner) if owner.id() != tenant.id() => {
                Err(StoreError::Taken(NameConflict::Slug(tenant.slug().clone())))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn domains(&self, tenant: TenantId) -> Vec<Domain> {
        self.domains.iter().filter(|(_, owner)| **owner == tenant).map(|(d, _)| d.clone()).collect()
    }

    pub(super) fn create(&mut self, tenant: &Tenant, domains: &[Domain]) -> Result<(), StoreError> {
        if let Some(stored) = self.tenants.get(&tenant.id()) {
            let mut wanted = domains.to_vec();
            wanted.sort();
            wanted.dedup();
            let is_same = stored == tenant && self.domains(tenant.id()) == wanted;
            return if is_same { Ok(()) } else { Err(rules::other_tenant()) };
        }
        self.require_free_slug(tenant)?;
        if let Some(taken) = domains.iter().find(|d| self.domains.contains_key(d)) {
            return Err(StoreError::Taken(NameConflict::Domain(taken.clone())));
        }
        self.tenants.insert(tenant.id(), tenant.clone());
        self.domains.extend(domains.iter().map(|d| (d.clone(), tenant.id())));
        Ok(())
    }

    pub(super) fn discard(&mut self, tenant: TenantId) -> Result<(), StoreError> {
        match self.tenants.get(&tenant).map(Tenant::status) {
            None => return Ok(()),
            Some(TenantStatus::Provisioning) if self.placements.contains_key(&tenant) => {
                return Err(rules::still_placed());
            }
            Some(TenantStatus::Provisioning) => {}
            Some(status) => return Err(rules::not_provisioning(status.as_str())),
        }
        self.tenants.remove(&tenant);
        self.domains.retain(|_, owner| *owner != tenant);
        self.databases.retain(|d| d.tenant != tenant);
        self.users.retain(|u| u.tenant != tenant);
        Ok(())
    }

    pub(super) fn update(&mut self, expected: &Tenant, tenant: &Tenant) -> Result<(), StoreError> {
        match self.tenants.get(&tenant.id()) {
            None => return Err(rules::no_tenant()),
            Some(stored) if stored == tenant => return Ok(()),
            Some(stored) if stored != expected => return Err(rules::changed_tenant()),
            Some(_) => {}
        }
        if tenant.status() == TenantStatus::Deleted {
            self.domains.retain(|_, owner| *owner != tenant.id());
            self.databases
                .iter_mut()
                .filter(|d| d.tenant == tenant.id())
                .for_each(|d| d.status = DatabaseStatus::Dropped);
            self.users.iter_mut().filter(|u| u.tenant == tenant.id()).for_each(|u| u.status = UserStatus::Dropped);
        } else {
            self.require_free_slug(tenant)?;
        }
        self.tenants.insert(tenant.id(), tenant.clone());
        Ok(())
    }

    pub(super) fn add_domain(&mut self, tenant: TenantId, domain: &Domain) -> Result<(), StoreError> {
        match self.domains.get(domain) {
            Some(owner) if *owner == tenant => return Ok(()),
            owner => {
                self.require_not_deleted(tenant)?;
                if owner.is_some() {
                    return Err(StoreError::Taken(NameConflict::Domain(domain.clone())));
                }
            }
        }
        self.domains.insert(domain.clone(), tenant);
        Ok(())
    }

    pub(super) fn databases(&self, tenant: TenantId) -> Vec<TenantDatabase> {
        let in_use = |d: &&TenantDatabase| d.tenant == tenant && d.status != DatabaseStatus::Dropped;
        let mut entries: Vec<_> = self.databases.iter().filter(in_use).cloned().collect();
        let rank = |kind| match kind {
            DatabaseKind::Primary => 0,
            DatabaseKind::Replica => 1,
            DatabaseKind::Backup => 2,
        };
        entries.sort_by(|a, b| {
            (rank(a.kind), &a.host, a.port, &a.database).cmp(&(rank(b.kind), &b.host, b.port, &b.database))
        });
        entries
    }

    fn find_entry_mut(&mut self, like: &TenantDatabase) -> Option<&mut TenantDatabase> {
        self.databases.iter_mut().find(|d| {
            (d.tenant, d.kind, &d.host, d.port, &d.database)
                == (like.tenant, like.kind, &like.host, like.port, &like.database)
        })
    }

    pub(super) fn publish(&mut self, expected: TenantStatus, entry: &TenantDatabase) -> Result<(), StoreError> {
        let stored = self.tenants.get(&entry.tenant).cloned().ok_or_else(rules::no_tenant)?;
        if stored.status() != expected {
            let is_done = stored.status() == TenantStatus::Active
                && self.find_entry_mut(entry).is_some_and(|e| rules::is_published(e, entry));
            return if is_done { Ok(()) } else { Err(rules::other_status(stored.status().as_str(), expected)) };
        }
        self.write_entry(entry)?;
        self.tenants.insert(stored.id(), stored.with_status(TenantStatus::Active));
        Ok(())
    }

    pub(super) fn put_database(
        &mut self, expected: Option<Generation>, entry: &TenantDatabase,
    ) -> Result<(), StoreError> {
        match self.find_entry_mut(entry).cloned() {
            Some(stored) if stored == *entry => return Ok(()),
            Some(stored) if Some(stored.generation) != expected => {
                return Err(rules::other_generation(stored.generation));
            }
            None if expected.is_some() => return Err(rules::no_entry()),
            _ => {}
        }
        if entry.status != DatabaseStatus::Dropped {
            self.require_not_deleted(entry.tenant)?;
        } else if !self.tenants.contains_key(&entry.tenant) {
            return Err(rules::no_tenant());
        }
        self.write_entry(entry)
    }

    pub(super) fn replace_login(&mut self, expected: Generation, entry: &TenantDatabase) -> Result<(), StoreError> {
        let stored = self.find_entry_mut(entry).cloned().ok_or_else(rules::no_entry)?;
        if rules::has_same_login(&stored, entry) {
            return Ok(());
        }
        if stored.generation != expected {
            return Err(rules::other_generation(stored.generation));
        }
        if stored.status != entry.status {
            return Err(rules::other_entry_status(stored.status));
        }
        self.require_not_deleted(entry.tenant)?;
        let TenantDatabase { login, credential, generation, .. } = entry.clone();
        self.write_entry(&TenantDatabase { login, credential, generation, ..stored })
    }

    pub(super) fn record_schema(&mut self, tenant: TenantId, state: &str) {
        let primary = self.databases.iter_mut().find(|d| d.tenant == tenant && rules::is_primary(d));
        if let Some(primary) = primary {
            primary.schema_state = state.into();
        }
    }

    fn write_entry(&mut self, entry: &TenantDatabase) -> Result<(), StoreError> {
        let is_of_database = |u: &DatabaseUser| {
            u.tenant == entry.tenant && Some(&u.server) == entry.server.as_ref() && u.database == entry.database
        };
        let is_login = |u: &DatabaseUser| is_of_database(u) && u.role == entry.login && u.status != UserStatus::Dropped;
        if rules::is_active_managed_primary(entry) && !self.users.iter().any(is_login) {
            return Err(rules::no_login(entry));
        }
        let key = |d: &TenantDatabase| (d.host.clone(), d.port, d.database.clone());
        let is_other_primary =
            |d: &TenantDatabase| d.tenant == entry.tenant && rules::is_primary(d) && key(d) != key(entry);
        if rules::is_primary(entry) && self.databases.iter().any(is_other_primary) {
            return Err(rules::second_primary());
        }
        match self.find_entry_mut(entry) {
            Some(stored) => *stored = entry.clone(),
            None => self.databases.push(entry.clone()),
        }
        if rules::is_active_managed_primary(entry) {
            let mut retiring = vec![];
            for user in self.users.iter_mut().filter(|u| is_of_database(u)) {
                match user.status {
                    UserStatus::Pending | UserStatus::Retiring if user.role == entry.login => {
                        user.status = UserStatus::Active;
                    }
                    UserStatus::Active if user.role != entry.login => {
                        user.status = UserStatus::Retiring;
                        retiring.push(user.clone());
                    }
                    _ => {}
                }
            }
            retiring.iter().for_each(|user| self.start_retirement(user, Some(UserStatus::Active), false));
        }
        Ok(())
    }

    pub(super) fn put_user(&mut self, expected: Option<UserStatus>, user: &DatabaseUser) -> Result<(), StoreError> {
        let at = self.users.iter().position(|u| (&u.server, &u.role) == (&user.server, &user.role));
        if let Some(result) = rules::compare_with_stored_user(at.map(|at| &self.users[at]), expected, user) {
            return result;
        }
        let is_other_active = |u: &DatabaseUser| {
            u.status == UserStatus::Active
                && u.role != user.role
                && (u.tenant, &u.server, &u.database) == (user.tenant, &user.server, &user.database)
        };
        if user.status == UserStatus::Active && self.users.iter().any(is_other_active) {
            return Err(rules::second_active());
        }
        if user.status == UserStatus::Retiring {
            self.start_retirement(user, expected, true);
        }
        match at {
            Some(at) => self.users[at] = user.clone(),
            None => {
                if user.status != UserStatus::Dropped {
                    self.require_not_deleted(user.tenant)?;
                } else if !self.tenants.contains_key(&user.tenant) {
                    return Err(rules::no_tenant());
                }
                self.users.push(user.clone());
            }
        }
        Ok(())
    }
}
