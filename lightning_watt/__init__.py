"""What did that training cost in electricity?"""
