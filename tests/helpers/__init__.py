"""What tests share: small logs, data sets, models and runs, stand-ins for servers and runners."""
