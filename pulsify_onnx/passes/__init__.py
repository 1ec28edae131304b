"""Plan -> Plan: when everything happens, and how it is remembered."""
